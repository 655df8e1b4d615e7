"""What both composition roots, web node and worker, make in the same way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
import uuid_utils

from app.accounts.accounts import AccountRules, Accounts, Issuer, Revoker
from app.accounts.jwks import Jwks
from app.accounts.keys import OneKey, OwnKeys, read_public_key
from app.accounts.passwords import Passwords
from app.accounts.tokens import (
    OWN_ISSUER,
    Expected,
    FindsKeys,
    TokenIssuer,
    TokenVerifier,
)
from app.db.engine import Database
from app.events.envelope import EventBuilder
from app.models.build import build_models
from app.models.servers import ModelLimits

if TYPE_CHECKING:
    from app.config import Settings
    from app.models.registry import ModelRegistry


def database_of(settings: Settings) -> Database:
    """Make the database that the settings name; it connects on first use."""
    return Database(
        settings.database_address,
        pool_size=settings.database_pool_size,
        timeout_seconds=settings.database_timeout_seconds,
    )


def models_of(settings: Settings) -> ModelRegistry:
    """Make the models that the settings name."""
    return build_models(
        servers=settings.model_servers,
        limits=ModelLimits(
            connect_seconds=settings.model_connect_seconds,
            first_token_seconds=settings.model_first_token_seconds,
            silence_seconds=settings.model_silence_seconds,
            retries=settings.model_retries,
            retry_after_seconds=settings.model_retry_after_seconds,
            circuit_failures=settings.model_circuit_failures,
            circuit_seconds=settings.model_circuit_seconds,
            concurrency=settings.model_concurrency,
            wait_seconds=settings.model_wait_seconds,
            context_tokens=settings.model_context_tokens,
            system_prompt=settings.model_system_prompt,
        ),
        default=settings.model_default,
        demo_delay_ms=settings.demo_delay_ms,
    )


def accounts_of(
    settings: Settings,
    *,
    database: Database,
    passwords: Passwords,
    issuer: Issuer,
    revoker: Revoker,
) -> Accounts:
    """Make the accounts service by the settings."""
    return Accounts(
        database=database,
        passwords=passwords,
        issuer=issuer,
        revoker=revoker,
        events=EventBuilder(settings.node_id, new_id),
        rules=AccountRules(
            sign_up=settings.sign_up,
            sign_in_lifetime=timedelta(days=settings.sign_in_days),
            cookie_seconds=settings.jwt_cookie_seconds,
            token_seconds=settings.jwt_ttl_seconds,
            allows_links=settings.is_development,
        ),
        new_id=new_id,
        clock=clock_of(settings),
        logger=structlog.get_logger("app.accounts"),
    )


def issuer_of(settings: Settings) -> TokenIssuer:
    """Make what signs our tokens. Raises SettingsError where there is no key that can be used."""
    return TokenIssuer(_own_keys(settings), _own_claims(settings))


def verifier_of(settings: Settings) -> TokenVerifier:
    """Make what knows our tokens and another issuer's; raises as ``issuer_of``."""
    outside: FindsKeys | None = None
    if settings.jwt_public_key is not None:
        outside = OneKey(read_public_key(settings.jwt_public_key, settings.jwt_algorithm))
    elif settings.jwt_jwks_url is not None:
        outside = Jwks(settings.jwt_jwks_url, algorithm=settings.jwt_algorithm)
    return TokenVerifier(
        _own_keys(settings),
        _own_claims(settings),
        outside=outside,
        outside_expected=Expected(settings.jwt_issuer, settings.jwt_audience),
    )


def _own_keys(settings: Settings) -> OwnKeys:
    return OwnKeys(settings.signing_key(), settings.previous_signing_keys)


def _own_claims(settings: Settings) -> Expected:
    # Where JWT_ISSUER is somebody else's name, ours must not be taken for it.
    has_other = settings.jwt_public_key is not None or settings.jwt_jwks_url is not None
    issuer = OWN_ISSUER if has_other else settings.jwt_issuer
    return Expected(issuer, settings.jwt_audience)


def new_id() -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7)."""
    return str(uuid_utils.uuid7())


def clock_of(settings: Settings) -> Callable[[], datetime]:
    """Give the process's clock, set off by as much as the settings say."""
    offset = timedelta(seconds=settings.clock_offset_seconds)
    return lambda: utc_now() + offset


def utc_now() -> datetime:
    """Give the time, aware of being UTC."""
    return datetime.now(UTC)
