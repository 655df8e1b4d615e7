"""``GET /api/sessions/{session_id}/events``: the session log as SSE or by long poll."""

from __future__ import annotations

import random
from typing import Final

from litestar import get
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from app.chat.following import Follower
from app.domain.errors import NotFound
from app.web import sse
from app.web.auth import TAKES_TICKETS, caller_of
from app.web.exchange import exchange_of
from app.web.limits import STREAMS
from app.web.parameters import position_of, query_value, wait_of
from app.web.parts import Parts, parts_of
from app.web.problems import AnyRequest, InvalidFields, quality_of
from app.web.sessions import session_id_of
from app.web.stream import EventStream, unless_gone

_JITTER: Final = 0.2


@get("/api/sessions/{session_id:str}/events", opt={**STREAMS, **TAKES_TICKETS})
async def events(request: AnyRequest) -> ASGIApp:
    """Follow a session from a position, by server-sent events or by long poll."""
    session_id = session_id_of(request)
    content = query_value(request, "content")
    if content not in {None, "delta", "full"}:
        raise InvalidFields("content", "content must be delta or full")
    poll = _wants_poll(request)
    wait_seconds = wait_of(request) if poll else 0.0
    follower = await parts_of(request).following.open(
        caller_of(request),
        session_id,
        position_of(request),
        "poll" if poll else "sse",
        full_content=content == "full",
    )
    if poll:
        return await _poll(request, follower, wait_seconds)
    return await _stream(request, follower)


async def _stream(request: AnyRequest, follower: Follower) -> ASGIApp:
    parts = parts_of(request)
    if follower.deleted:
        await follower.close()
        return _no_content()
    return EventStream(
        follower,
        prologue=sse.retry(_jittered(parts)),
        encode=sse.frame_event,
        encode_error=sse.error_event,
        send_timeout_seconds=parts.send_timeout_seconds,
    )


async def _poll(request: AnyRequest, follower: Follower, wait_seconds: float) -> ASGIApp:
    # A HEAD request asks what the response would be like, not for what happens next.
    if exchange_of(request.scope).is_head:
        wait_seconds = 0.0
    try:
        if follower.deleted:
            return _no_content()
        answer = await unless_gone(request.receive, follower.poll(wait_seconds))
    except NotFound:
        # Deleted while this was waiting.
        return _no_content()
    finally:
        await follower.close()
    return ASGIResponse(
        body=sse.poll_answer(answer.entries, answer.position, answer.history),
        media_type="application/json",
    )


def _wants_poll(request: AnyRequest) -> bool:
    transport = query_value(request, "transport")
    if transport is not None:
        if transport not in {"sse", "poll"}:
            raise InvalidFields("transport", "transport must be sse or poll")
        return transport == "poll"
    return quality_of(request, "application/json") > quality_of(request, sse.MEDIA_TYPE)


def _jittered(parts: Parts) -> int:
    """Spread reconnections: a node that goes away is not followed by a herd in step."""
    return round(parts.retry_ms * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311


def _no_content() -> ASGIApp:
    """204: a deleted session, which stops a stock EventSource for good (WHATWG HTML, 9.2)."""
    return ASGIResponse(status_code=204)


ROUTES: Final = [events]
