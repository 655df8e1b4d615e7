"""The frames of ``/ws/chat``: pure encoders for ours, typed forms for the client's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from app.domain.errors import ChatError
from app.domain.events import Entry
from app.domain.frames import Bye, ByeReason, Entries, Frame, Heartbeat, History, Welcome

FRAME_MAX_BYTES: Final = 64 * 1024

_encode = msgspec.json.Encoder().encode


class ChatFrame(msgspec.Struct, tag="chat", tag_field="type", forbid_unknown_fields=True):
    """Ask a question in the session of the connection."""

    message: str
    client_message_id: str | None = None
    model: str | None = None


class CancelFrame(msgspec.Struct, tag="cancel", tag_field="type", forbid_unknown_fields=True):
    """Stop an answer."""

    message_id: str


class AuthFrame(msgspec.Struct, tag="auth", tag_field="type", forbid_unknown_fields=True):
    """Say who one is, or renew a credential that ends soon."""

    token: str


class PingFrame(msgspec.Struct, tag="ping", tag_field="type", forbid_unknown_fields=True):
    """Ask whether anybody is there."""


ClientFrame: TypeAlias = ChatFrame | CancelFrame | AuthFrame | PingFrame

read_frame: Final = msgspec.json.Decoder(ClientFrame).decode

CLOSE_CODES: Final[Mapping[ByeReason, int]] = {
    ByeReason.DRAIN: 1001,
    ByeReason.LIFETIME: 4410,
    ByeReason.TOKEN_EXPIRED: 4401,
    ByeReason.SESSION_DELETED: 4404,
}


def frame_texts(frame: Frame) -> list[str]:
    """Encode one frame of a follower as the text frames of the socket."""
    match frame:
        case Entries():
            return [entry.form(_entry_frame).decode() for entry in frame.entries]
        case Heartbeat():
            # The protocol's own pings keep a WebSocket alive.
            return []
        case Welcome():
            return [answer("welcome", frame)]
        case History():
            return [_with_position(frame.position, "history", _encode(frame)).decode()]
        case Bye():
            return [answer("bye", frame)]


def _entry_frame(entry: Entry) -> bytes:
    return _with_position(str(entry.position), entry.type, entry.data)


def _with_position(position: str, kind: str, data: bytes) -> bytes:
    return b'{"id":"%s","type":"%s","data":%s}' % (position.encode(), kind.encode(), data)


def answer(kind: str, data: object) -> str:
    """Encode a frame that has no position."""
    return (b'{"type":"%s","data":%s}' % (kind.encode(), _encode(data))).decode()


def error_frame(error: ChatError, client_message_id: str | None = None) -> str:
    """Encode an error, with the question's key where there was one."""
    data: dict[str, object] = error.extra | {
        "code": error.code,
        "detail": error.detail,
        "retryable": error.retryable,
    }
    if client_message_id is not None:
        data["client_message_id"] = client_message_id
    return answer("error", data)
