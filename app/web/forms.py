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
