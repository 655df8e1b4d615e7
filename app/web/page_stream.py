"""What keeps a shown conversation current: its event stream and its poll.

Its WebSocket is that of every client, with ``content=html`` (``ws.py``).
"""

from __future__ import annotations

from functools import partial
from typing import Final

from litestar import get
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from app.chat.following import Follower
from app.domain.errors import NotFound
from app.domain.frames import Bye, ByeReason, Entries
from app.web import sse
from app.web.auth import caller_of
from app.web.exchange import exchange_of
from app.web.fragments import Fragment, FragmentEncoder
from app.web.limits import STREAMS
from app.web.page_follower import PageFollower, StateReader, state_reader
from app.web.page_frames import page_answer, page_event
from app.web.parameters import position_of, wait_of
from app.web.parts import parts_of
from app.web.problems import AnyRequest
from app.web.sessions import session_id_of
from app.web.stream import EventStream, unless_gone

_DELETED: Final = Bye(ByeReason.SESSION_DELETED, reconnect=False, after_ms=0)


@get("/chat/{session_id:str}/stream", opt=STREAMS)
async def stream(request: AnyRequest) -> ASGIApp:
    """Send what changes the page, as server-sent events."""
    session_id = session_id_of(request)
    parts, caller = parts_of(request), caller_of(request)
    encoder = FragmentEncoder(parts.rendering, session_id)
    follower = await parts.following.open(caller, session_id, position_of(request), "sse")
    if follower.deleted:
        await follower.close()
        return ASGIResponse(
            body=page_event(encoder, _DELETED), headers={"Content-Type": sse.MEDIA_TYPE}
        )
    return EventStream(
        PageFollower(follower, encoder, state_reader(parts.chat, caller, session_id)),
        prologue=b": the stream of a page\n\n",
        encode=partial(page_event, encoder),
        encode_error=sse.error_event,
        send_timeout_seconds=parts.send_timeout_seconds,
    )


@get("/chat/{session_id:str}/poll", opt=STREAMS)
async def poll(request: AnyRequest) -> ASGIApp:
    """Answer with what changes the page, at once or as soon as there is something."""
    session_id = session_id_of(request)
    parts, caller = parts_of(request), caller_of(request)
    # A HEAD request asks what the response would be like, not for what happens next.
    wait_seconds = 0.0 if exchange_of(request.scope).is_head else wait_of(request)
    encoder = FragmentEncoder(parts.rendering, session_id)
    follower = await parts.following.open(caller, session_id, position_of(request), "poll")
    try:
        if follower.deleted:
            return _answer(encoder.gone(), ended=True)
        read_state = state_reader(parts.chat, caller, session_id)
        changes = _next_fragment(follower, wait_seconds, encoder, read_state)
        return _answer(await unless_gone(request.receive, changes))
    except NotFound:
        # Deleted while this was waiting.
        return _answer(encoder.gone(), ended=True)
    finally:
        await follower.close()


async def _next_fragment(
    follower: Follower, wait_seconds: float, encoder: FragmentEncoder, read_state: StateReader
) -> Fragment:
    found = await follower.poll(wait_seconds)
    if found.history is not None:
        return encoder.fragment(found.history)
    if not found.entries:
        return Fragment(b"", str(found.position))
    entries = Entries(found.entries)
    if encoder.lacks(entries):
        encoder.learn(entries, await read_state())
    return encoder.fragment(entries)


def _answer(fragment: Fragment, *, ended: bool = False) -> ASGIApp:
    return ASGIResponse(
        body=page_answer(fragment, ended=ended),
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


ROUTES: Final = [stream, poll]
