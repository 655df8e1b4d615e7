"""The frames of a session for its own page, over each transport: pure encoders.

The page's script understands five: ``fragment`` (HTML to be swapped in, and the position after
it), ``welcome``, ``heartbeat`` (a script sees neither the comments of an event stream nor the
pings of a WebSocket, and has to notice a connection that has gone silent), ``bye`` and ``error``.
Page and server are of one version and change together: none of this is part of the contract.
"""

from __future__ import annotations

import msgspec

from app.domain.frames import Bye, ByeReason, Entries, Frame, Heartbeat, History, Welcome
from app.web.fragments import Fragment, FragmentEncoder
from app.web.sse import frame_event
from app.web.ws_frames import answer, frame_texts

_encode = msgspec.json.Encoder().encode


class PollAnswer(msgspec.Struct, frozen=True):
    """What the page is told when it asks for what is new."""

    html: str
    position: str | None
    ended: bool = False
    """Whether there is nothing to come back for."""


def page_event(encoder: FragmentEncoder, frame: Frame) -> bytes:
    """Encode one frame as one write to the page's event stream."""
    match frame:
        case Entries() | History():
            return _event(encoder.fragment(frame))
        case Heartbeat():
            return b"event: heartbeat\ndata: null\n\n"
        case Bye(reason=ByeReason.SESSION_DELETED):
            return _event(encoder.gone()) + frame_event(frame)
        case Welcome() | Bye():
            return frame_event(frame)


def page_texts(encoder: FragmentEncoder, frame: Frame) -> list[str]:
    """Encode one frame as the text frames of the page's WebSocket."""
    match frame:
        case Entries() | History():
            return [_text(encoder.fragment(frame))]
        case Heartbeat():
            return [answer("heartbeat", None)]
        case Bye(reason=ByeReason.SESSION_DELETED):
            return [_text(encoder.gone()), *frame_texts(frame)]
        case Welcome() | Bye():
            return frame_texts(frame)


def page_answer(fragment: Fragment, *, ended: bool = False) -> bytes:
    """Encode the answer to a poll."""
    return _encode(PollAnswer(fragment.html.decode(), fragment.position, ended))


def _event(fragment: Fragment) -> bytes:
    """Write an event; each line of the HTML is a data line, and joined with LF again."""
    head = b"" if fragment.position is None else b"id: %s\n" % fragment.position.encode()
    data = fragment.html.replace(b"\n", b"\ndata: ")
    return b"%sevent: fragment\ndata: %s\n\n" % (head, data)


def _text(fragment: Fragment) -> str:
    html = _encode(fragment.html.decode())
    if fragment.position is None:
        return (b'{"type":"fragment","data":%s}' % html).decode()
    return (
        b'{"id":"%s","type":"fragment","data":%s}' % (fragment.position.encode(), html)
    ).decode()
