"""Frames for clients that keep no state: the whole text with every chunk.

Costs the square of an answer's length on the wire, which is why it is asked for (``content=full``)
and not the default.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from app.domain.events import Chunk, Entry, EventType, Start
from app.domain.frames import Entries, Frame, History, HistoryReason
from app.domain.messages import Message, Status
from app.domain.position import Position

_read_chunk = msgspec.json.Decoder(Chunk).decode
_read_start = msgspec.json.Decoder(Start).decode
_read_message = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


class MessageSoFar(Message, frozen=True, kw_only=True):
    """An unfinished message with all of its text, and the piece that came last."""

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
                await self._know(start.message_id, start.attempt, start.content)
                return entry
            case EventType.MESSAGE:
                message = _read_message(entry.data)
                self._messages[message.message_id] = message
                return entry
            case EventType.CHUNK:
                return Entry(entry.position, EventType.MESSAGE.value, await self._chunk(entry))
            case _:
                return entry

    async def _chunk(self, entry: Entry) -> bytes:
        chunk = _read_chunk(entry.data)
        known = self._messages.get(chunk.message_id)
        if known is None or len(known.content) < chunk.offset or known.attempt != chunk.attempt:
            known = await self._know(chunk.message_id, chunk.attempt, None, upto=chunk)
        text = known.content[: chunk.offset] + chunk.chunk
        now = msgspec.structs.replace(known, content=text)
        self._messages[chunk.message_id] = now
        return _encode(MessageSoFar(chunk=chunk.chunk, **msgspec.structs.asdict(now)))

    async def _know(
        self, message_id: str, attempt: int, content: str | None, *, upto: Chunk | None = None
    ) -> Message:
        """Read the message's other fields, and its text where it is not given."""
        history = await self._read_history()
        found = next((one for one in history.messages if one.message_id == message_id), None)
        if found is None:
            raise _PrefixUnknownError
        if upto is not None:
            # The state is newer than the chunk. Its text begins like the chunk's message only if
            # no other attempt has started over since.
            end = upto.offset + len(upto.chunk)
            if found.content[upto.offset : end] != upto.chunk:
                raise _PrefixUnknownError
            content = found.content[: upto.offset]
        known = msgspec.structs.replace(
            found,
            content=content or "",
            attempt=attempt,
            status=Status.STREAMING,
            is_complete=False,
            completed_at=None,
            error=None,
            usage=None,
        )
        self._messages[message_id] = known
        return known

    async def _whole(self, position: Position) -> History:
        history = await self._read_history()
        # What follows on ``position`` comes next; the newer state makes that a repeat.
        whole = History(history.messages, str(position), HistoryReason.TRIMMED)
        self._take(whole)
        return whole

    def _take(self, history: History) -> None:
        self._messages = _by_id(history.messages)


def _by_id(messages: Sequence[Message]) -> dict[str, Message]:
    return {message.message_id: message for message in messages}
