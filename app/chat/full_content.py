"""Frames for clients that keep no state: the whole text with every chunk.

Costs the square of an answer's length on the wire, which is why it is asked for (``content=full``)
and not the default.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from app.domain.events import Chunk, Entry, EventType, Start, Thought
from app.domain.frames import Entries, Frame, History, HistoryReason
from app.domain.messages import Message, Status
from app.domain.position import Position

_read_chunk = msgspec.json.Decoder(Chunk).decode
_read_start = msgspec.json.Decoder(Start).decode
_read_thought = msgspec.json.Decoder(Thought).decode
_read_message = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


class MessageSoFar(Message, frozen=True, kw_only=True):
    """An unfinished message with all of its text, and the piece of it that came last.

    That is empty where it was the reasoning that grew.
    """

    chunk: str


class _PrefixUnknownError(Exception):
    """What a chunk follows on cannot be told from the state as it is now."""


class FullContent:
    """Turns the chunks of one follower into messages with their whole text so far."""

    def __init__(self, read_history: Callable[[], Awaitable[History]]) -> None:
        """Take what reads the session's whole state as it is now."""
        self._read_history = read_history
        self._messages: dict[str, Message] = {}

    async def convert(self, frame: Frame) -> Frame:
        """Give the frame as such a client gets it; one History where a text cannot be told."""
        match frame:
            case History():
                self._take(frame)
                return frame
            case Entries():
                try:
                    return Entries([await self._entry(entry) for entry in frame.entries])
                except _PrefixUnknownError:
                    return await self._whole(frame.position)
            case _:
                return frame

    async def _entry(self, entry: Entry) -> Entry:
        match entry.type:
            case EventType.START:
                start = _read_start(entry.data)
                self._messages.pop(start.message_id, None)
                await self._know(start)
                return entry
            case EventType.MESSAGE:
                message = _read_message(entry.data)
                self._messages[message.message_id] = message
                return entry
            case EventType.CHUNK:
                return Entry(entry.position, EventType.MESSAGE.value, await self._chunk(entry))
            case EventType.REASONING:
                return Entry(entry.position, EventType.MESSAGE.value, await self._thought(entry))
            case _:
                return entry

    async def _chunk(self, entry: Entry) -> bytes:
        chunk = _read_chunk(entry.data)
        known = self._known(chunk)
        if known is None or len(known.content) < chunk.offset:
            found = await self._find(chunk.message_id)
            # The state is newer than the chunk. Its text begins like the chunk's message only if
            # no other attempt has started over since.
            if not _holds(found.content, chunk):
                raise _PrefixUnknownError
            known = _unfinished(found, chunk.attempt, found.content, found.reasoning)
        content = known.content[: chunk.offset] + chunk.chunk
        return self._told(known, content, known.reasoning, chunk.chunk)

    async def _thought(self, entry: Entry) -> bytes:
        thought = _read_thought(entry.data)
        known = self._known(thought)
        if known is None or len(known.reasoning or "") < thought.offset:
            found = await self._find(thought.message_id)
            # Where there is text already, nobody can tell how much of it there was at this point.
            if found.content or not _holds(found.reasoning or "", thought):
                raise _PrefixUnknownError
            known = _unfinished(found, thought.attempt, "", found.reasoning)
        reasoning = (known.reasoning or "")[: thought.offset] + thought.chunk
        return self._told(known, known.content, reasoning, "")

    def _known(self, piece: Chunk | Thought) -> Message | None:
        known = self._messages.get(piece.message_id)
        return known if known is not None and known.attempt == piece.attempt else None

    def _told(self, known: Message, content: str, reasoning: str | None, chunk: str) -> bytes:
        now = msgspec.structs.replace(known, content=content, reasoning=reasoning)
        self._messages[known.message_id] = now
        return _encode(MessageSoFar(chunk=chunk, **msgspec.structs.asdict(now)))

    async def _know(self, start: Start) -> None:
        """Read the message's other fields."""
        found = await self._find(start.message_id)
        self._messages[start.message_id] = _unfinished(
            found, start.attempt, start.content, start.reasoning
        )

    async def _find(self, message_id: str) -> Message:
        for message in (await self._read_history()).messages:
            if message.message_id == message_id:
                return message
        raise _PrefixUnknownError

    async def _whole(self, position: Position) -> History:
        history = await self._read_history()
        # What follows on ``position`` comes next; the newer state makes that a repeat.
        whole = History(history.messages, str(position), HistoryReason.TRIMMED)
        self._take(whole)
        return whole

    def _take(self, history: History) -> None:
        self._messages = _by_id(history.messages)


def _holds(text: str, piece: Chunk | Thought) -> bool:
    return text[piece.offset : piece.offset + len(piece.chunk)] == piece.chunk


def _unfinished(found: Message, attempt: int, content: str, reasoning: str | None) -> Message:
    """Give the message as it was before its end."""
    return msgspec.structs.replace(
        found,
        content=content,
        reasoning=reasoning,
        attempt=attempt,
        status=Status.STREAMING,
        is_complete=False,
        completed_at=None,
        error=None,
        usage=None,
    )


def _by_id(messages: Sequence[Message]) -> dict[str, Message]:
    return {message.message_id: message for message in messages}
