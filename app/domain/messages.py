"""Sessions, messages and what may be said in them."""

from __future__ import annotations

import enum
import re
from datetime import UTC, datetime

import msgspec

from app.domain.errors import ValidationFailed

MESSAGE_MAX_CHARACTERS = 5000
TITLE_MAX_CHARACTERS = 200
CLIENT_MESSAGE_ID_MAX_CHARACTERS = 128
SEARCH_MAX_CHARACTERS = 200
REASONING_MAX_CHARACTERS = 65_536
"""Code points of reasoning that are kept of one answer, with the «…» that stands for the rest."""

_SESSION_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Role(enum.StrEnum):
    """Whose turn a message is."""

    USER = "user"
    ASSISTANT = "assistant"


class Status(enum.StrEnum):
    """Where a message stands; the last three are final."""

    QUEUED = "queued"
    STREAMING = "streaming"
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing further will happen to the message unless it is regenerated."""
        return self in {Status.COMPLETE, Status.CANCELLED, Status.FAILED}


class AnswerError(msgspec.Struct, frozen=True):
    """Why an answer is not complete; ``code`` is stable, ``detail`` is for a person."""

    code: str
    detail: str


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the model server counted them."""

    prompt_tokens: int
    completion_tokens: int


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A turn in a session, exactly as the contract's message object shows it."""

    message_id: str
    session_id: str
    role: Role
    content: str
    status: Status
    is_complete: bool
    attempt: int
    model: str | None
    created_at: str
    completed_at: str | None = None
    error: AnswerError | None = None
    usage: Usage | None = None
    reasoning: str | None = None


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation, owned by one user."""

    session_id: str
    title: str
    created_at: str
    updated_at: str


def timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC with milliseconds (``2026-01-31T09:05:00.123Z``)."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_session_id(session_id: str) -> str:
    """Give the id back, or raise ValidationFailed where it is not ``^[A-Za-z0-9-]{1,64}$``."""
    if _SESSION_ID.fullmatch(session_id) is None:
        raise ValidationFailed("session_id must be 1 to 64 letters, digits or hyphens")
    return session_id


def _check_text(text: str, *, name: str, maximum: int) -> str:
    trimmed = text.strip()
    if not trimmed:
        raise ValidationFailed(f"{name} must not be empty")
    if len(trimmed) > maximum:
        raise ValidationFailed(f"{name} must have at most {maximum} characters")
    # PostgreSQL cannot store NUL, and a lone surrogate has no UTF-8 form: either would be
    # accepted here and lost later.
    if "\x00" in trimmed:
        raise ValidationFailed(f"{name} must not contain the character NUL")
    if _SURROGATE.search(trimmed):
        raise ValidationFailed(f"{name} must not contain lone surrogates")
    return trimmed


def check_message(text: str) -> str:
    """Give a question trimmed, or raise ValidationFailed (1 to 5000 code points, storable)."""
    return _check_text(text, name="message", maximum=MESSAGE_MAX_CHARACTERS)


def check_title(title: str) -> str:
    """Give a session title trimmed, or raise ValidationFailed (1 to 200 code points)."""
    return _check_text(title, name="title", maximum=TITLE_MAX_CHARACTERS)


def check_client_message_id(key: str) -> str:
    """Give an idempotency key trimmed, or raise ValidationFailed (1 to 128 code points)."""
    return _check_text(key, name="client_message_id", maximum=CLIENT_MESSAGE_ID_MAX_CHARACTERS)


def check_search(wanted: str) -> str:
    """Give what is searched for trimmed, or raise ValidationFailed (1 to 200 code points)."""
    return _check_text(wanted, name="q", maximum=SEARCH_MAX_CHARACTERS)


def title_from_question(question: str) -> str:
    """Make a session's title from its first question: the first line, cut at a word's end."""
    line = " ".join(question.split("\n", 1)[0].split())
    if len(line) <= 60:  # noqa: PLR2004
        return line
    head = line[:60].rsplit(" ", 1)[0]
    return f"{head}…"


def storable(piece: str) -> str:
    """Make a model's text storable: NUL and lone surrogates become U+FFFD, one for one."""
    return _SURROGATE.sub("\ufffd", piece.replace("\x00", "\ufffd"))
