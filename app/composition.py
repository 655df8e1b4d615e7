"""What both composition roots, web node and worker, make in the same way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import uuid_utils

from app.db.engine import Database
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
