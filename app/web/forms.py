"""The JSON bodies that the REST calls take and give beside those of the layers below."""

from __future__ import annotations

import msgspec

from app.domain.messages import Session, Status


class Question(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of ``POST /api/chat``."""

    message: str
    session_id: str | None = None
    client_message_id: str | None = None
    model: str | None = None
    user_id: str | None = None


class Credentials(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of ``POST /auth/token``."""

    username: str
    password: str

    def __repr__(self) -> str:
        """Keep the password out of whatever shows this."""
        return "Credentials(…)"


class AccessToken(msgspec.Struct, frozen=True):
    """Body of the answer to ``POST /auth/token`` (RFC 6749, section 5.1)."""

    access_token: str
    expires_in: int
    """Seconds."""
    token_type: str = "bearer"  # noqa: S105

    def __repr__(self) -> str:
        """Keep the token out of whatever shows this."""
        return "AccessToken(…)"


class NewSession(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of ``POST /api/sessions``; may be left out."""

    session_id: str | None = None
    title: str | None = None


class SessionTitle(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of ``PATCH /api/sessions/{session_id}``."""

    title: str


class Regeneration(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of ``POST /api/chat/{message_id}/regenerate``; may be left out."""

    model: str | None = None
    keep: bool = False


class Stopped(msgspec.Struct, frozen=True):
    """Body of the answer to ``POST /api/chat/{message_id}/cancel``."""

    message_id: str
    status: Status


class SessionList(msgspec.Struct, frozen=True):
    """Body of the answer to ``GET /api/sessions``."""

    items: list[Session]
    next_cursor: str | None
