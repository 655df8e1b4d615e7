"""Who asks: the identity that every route, stream and page checks against."""

from __future__ import annotations

from typing import Literal, NamedTuple

DEVELOPMENT_USER = "dev"
"""Id and name of the user that a request without credentials acts as in development."""

LONGEST_TOKEN_SECONDS = 366 * 24 * 3600
"""Longest life of a token of ours: what lasts as long outlives every one of them."""

Credential = Literal["development", "bearer", "cookie", "ticket"]
"""What a caller showed. ``development`` is nothing at all; it and ``cookie`` are ambient: a browser
brings them along with whatever request another site's page makes it send."""


class Caller(NamedTuple):
    """An authenticated user."""

    user_id: str
    name: str
    roles: frozenset[str] = frozenset()
    expires_at: float | None = None
    """Unix time in seconds at which the credential ends; None where it does not."""
    sign_in_id: str | None = None
    """What all tokens of one sign-in have in common; None for a token that none led to."""
    token_id: str | None = None
    """What the token can be revoked by, its ``jti``."""
    credential: Credential = "bearer"
    issued_at: float | None = None
    """Unix time in seconds at which the token was made, as far as it says so."""
