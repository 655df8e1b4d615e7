"""What the operations find, as values."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias, TypeVar

from app.domain.messages import Message, Role, Session, Status
from app.domain.outbox import OutboxEvent

_Found = TypeVar("_Found")

EventsOf: TypeAlias = Callable[[_Found], Sequence[OutboxEvent]]
"""Makes the events of a change from what its transaction found; must not wait or fail."""


class User(NamedTuple):
    """Somebody who may own sessions."""

    user_id: str
    name: str | None
    created_at: datetime
    disabled_at: datetime | None


class Accepted(NamedTuple):
    """A question, or a new try at one, is committed together with its queued answer."""

    session: Session
    user_message: Message
    assistant_message: Message
    created_session: bool
    pristine: bool
    """Whether nothing was ever written to the session's log; False for a repeat."""
    repeated: bool
    """The same question was accepted before: these are its messages as they stand now."""


class Turn(NamedTuple):
    """What was said, as a model is told."""

    role: Role
    content: str


class Begun(NamedTuple):
    """The attempt is the caller's; nobody else can finish the answer under its number."""

    message: Message
    user_message: Message
    user_id: str
    attempt: int
    recovered: bool
    """Whether the attempt before this one ended without a word."""
    conversation: list[Turn]
    """Oldest first, beginning with a question and ending with the one to be answered."""


class AlreadyFinal(NamedTuple):
    """There is nothing left to generate."""

    message: Message
    user_message: Message
    user_id: str


class StopRequested(NamedTuple):
    """The answer is to be settled with the text so far; nothing was changed."""

    message: Message
    user_message: Message
    user_id: str


class Exhausted(NamedTuple):
    """As many attempts as allowed ended without a word; nothing was changed."""

    message: Message
    user_message: Message
    user_id: str


class Gone(NamedTuple):
    """The message was deleted with its session, or never was."""


Attempt: TypeAlias = Begun | AlreadyFinal | StopRequested | Exhausted | Gone


class StopResult(NamedTuple):
    """The answer as it stands, and whether a stop is now requested of it."""

    message: Message
    accepted: bool
    """False where the answer had ended already."""
    in_reply_to: str | None
    """The question that it answers."""


class SessionChange(NamedTuple):
    """A session as it is now."""

    session: Session
    pristine: bool
    """Whether nothing was ever written to the session's log."""


class SessionDeleted(NamedTuple):
    """What remains of a session, and the answer that was being generated in it."""

    session: Session
    unfinished: str | None
    cut: Message | None = None
    """That answer as it ended, where the session is kept to be restored."""
    cut_in_reply_to: str | None = None
    """The question that it answers."""


class TextSoFar(NamedTuple):
    """What the log has of an answer that is being written."""

    message_id: str
    text: str
    reasoning: str | None = None


class SessionPage(NamedTuple):
    """Some of a user's sessions, newest activity first."""

    items: list[Session]
    next_cursor: str | None
    """Where the next page begins; None on the last one."""


class SessionState(enum.Enum):
    """What a session is to its owner."""

    OWNED = "owned"
    DELETED = "deleted"


class SessionVersion(NamedTuple):
    """Which state of a settled session its row speaks of.

    ``revision`` goes up with each change to what the session holds. A database that was restored
    from a backup gives its numbers out once more; the time tells the two apart.
    """

    revision: int
    updated_at: datetime


class Unfinished(NamedTuple):
    """An answer that has no final state."""

    user_id: str
    """Whose session it is in."""
    session_id: str
    message_id: str
    attempt: int
    status: Status
