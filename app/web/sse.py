"""The frames of a session as server-sent events and as long-poll JSON: pure encoders.

Lines end with LF alone (a CRLF that is cut between two network packets reads as two line ends to
some parsers). The data of an entry is compact JSON without line breaks, so that one ``data:``
line always suffices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from app.domain.errors import ChatError
from app.domain.events import Entry
from app.domain.frames import Bye, Entries, Frame, Heartbeat, History, Welcome
from app.domain.position import Position

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT: Final = b": heartbeat\n\n"

_encode = msgspec.json.Encoder().encode


class StreamError(msgspec.Struct, frozen=True):
    """Data of the ``error`` control frame: what went wrong after the stream had begun."""

    code: str
    detail: str
    retryable: bool


def retry(milliseconds: int) -> bytes:
    """Tell the client how long to wait before it connects again."""
    return b"retry: %d\n\n" % milliseconds


def entry_event(entry: Entry) -> bytes:
    """Encode one entry of the log; hand it to ``Entry.form``, which keeps the result."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (
        str(entry.position).encode(),
        entry.type.encode(),
        entry.data,
    )


def frame_event(frame: Frame) -> bytes:
    """Encode one frame as one write, however many entries it holds."""
    match frame:
        case Entries():
            return b"".join([entry.form(entry_event) for entry in frame.entries])
        case Heartbeat():
            return HEARTBEAT
        case Welcome():
            return _control(b"welcome", frame)
        case History():
            # The id lets a stock EventSource resume right after this state.
            return b"id: %s\n%s" % (frame.position.encode(), _control(b"history", frame))
        case Bye():
            return _control(b"bye", frame)


def error_event(error: Exception) -> bytes:
    """Encode what ended a stream that had begun; nothing internal is told."""
    if isinstance(error, ChatError):
        told = StreamError(error.code, error.detail, error.retryable)
    else:
        told = StreamError("internal_error", "Something went wrong here.", retryable=True)
    return _control(b"error", told)


def _control(name: bytes, data: msgspec.Struct) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name, _encode(data))


def polled_event(entry: Entry) -> bytes:
    """Encode one entry for a long-poll answer; hand it to ``Entry.form``."""
    return b'{"id":"%s","type":"%s","data":%s}' % (
        str(entry.position).encode(),
        entry.type.encode(),
        entry.data,
    )


def poll_answer(entries: Sequence[Entry], position: Position, history: History | None) -> bytes:
    """Encode a long-poll answer: what happened, and where the client stands after it."""
    return b'{"events":[%s],"position":"%s","history":%s}' % (
        b",".join([entry.form(polled_event) for entry in entries]),
        str(position).encode(),
        _encode(history),
    )
