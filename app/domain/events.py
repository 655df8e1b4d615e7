"""What a session log holds: typed entries whose data is JSON, encoded once by the writer."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from app.domain.messages import Message
from app.domain.position import Position


class EventType(enum.StrEnum):
    """The five kinds of entry; the control frames stand outside the log."""

    MESSAGE = "message"
    START = "start"
    CHUNK = "chunk"
    REASONING = "reasoning"
    SESSION = "session"


class Start(msgspec.Struct, frozen=True):
    """An attempt begins; what the client has becomes ``content`` and ``reasoning``."""

    message_id: str
    attempt: int
    model: str
    content: str
    reasoning: str | None = None


class Chunk(msgspec.Struct, frozen=True):
    """Append ``chunk`` at ``offset``, in Unicode code points of the message so far."""

    message_id: str
    attempt: int
    index: int
    offset: int
    chunk: str


class Thought(msgspec.Struct, frozen=True):
    """Append ``chunk`` to the reasoning at ``offset``, in code points of the reasoning so far."""

    message_id: str
    attempt: int
    offset: int
    chunk: str


class SessionChanged(msgspec.Struct, frozen=True):
    """The session has a new title, or is gone."""

    session_id: str
    title: str
    deleted: bool = False


class NewEntry(NamedTuple):
    """An entry that has no position yet: what a writer hands to the log."""

    type: str
    data: bytes


class Entry:
    """One entry of a session log; ``data`` is compact JSON in UTF-8 without line breaks.

    Immutable but for the forms that it was encoded in, which are kept so that an entry is encoded
    once per format and not once per client.
    """

    __slots__ = ("_forms", "data", "position", "type")

    def __init__(self, position: Position, type: str, data: bytes) -> None:
        """Take what the log holds."""
        self.position = position
        self.type = type
        self.data = data
        self._forms: dict[Callable[[Entry], bytes], bytes] | None = None

    def form(self, encode: Callable[[Entry], bytes]) -> bytes:
        """Give what ``encode`` makes of this entry, computed at most once per entry."""
        if self._forms is None:
            self._forms = {}
        made = self._forms.get(encode)
        if made is None:
            made = self._forms[encode] = encode(self)
        return made

    def __eq__(self, other: object) -> bool:
        """Compare by what the log holds."""
        return isinstance(other, Entry) and (
            (self.position, self.type, self.data) == (other.position, other.type, other.data)
        )

    def __hash__(self) -> int:
        """Hash by position: unique within a log."""
        return hash(self.position)

    def __repr__(self) -> str:
        """Name the entry without its content, which is a user's."""
        return f"<Entry {self.position} {self.type} {len(self.data)} bytes>"


_encoder = msgspec.json.Encoder()

_KINDS = {
    Message: EventType.MESSAGE,
    Start: EventType.START,
    Chunk: EventType.CHUNK,
    Thought: EventType.REASONING,
    SessionChanged: EventType.SESSION,
}


def new_entry(data: Message | Start | Chunk | Thought | SessionChanged) -> NewEntry:
    """Encode an entry; this is the only time that its JSON is made."""
    return NewEntry(_KINDS[type(data)].value, _encoder.encode(data))


def tells_deletion(entry: Entry) -> bool:
    """Say whether this entry ends its session for good."""
    if entry.type != EventType.SESSION:
        return False
    return msgspec.json.decode(entry.data, type=SessionChanged).deleted
