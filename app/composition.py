"""What both composition roots, web node and worker, make in the same way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import uuid_utils

from app.db.engine import Database
from app.models.build import build_models

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
        base_url=settings.model_base_url,
        api_key=settings.model_api_key.get_secret_value() if settings.model_api_key else None,
        name=settings.model_name,
        default=settings.model_default,
        demo_delay_ms=settings.demo_delay_ms,
        connect_seconds=settings.model_connect_seconds,
        silence_seconds=settings.model_silence_seconds,
        context_characters=settings.model_context_characters,
    )


def new_id() -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7)."""
    return str(uuid_utils.uuid7())


def utc_now() -> datetime:
    """Give the time, aware of being UTC."""
    return datetime.now(UTC)
