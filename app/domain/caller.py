"""Who asks: the identity that every route, stream and page checks against."""

from __future__ import annotations

from typing import NamedTuple

DEVELOPMENT_USER = "dev"
"""Id and name of the user that a request without credentials acts as in development."""


class Caller(NamedTuple):
    """An authenticated user."""

    user_id: str
    name: str
    roles: frozenset[str] = frozenset()
    expires_at: float | None = None
    """Unix time in seconds at which the credential ends; None where it does not."""
