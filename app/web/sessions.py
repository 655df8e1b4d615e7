"""REST: sessions and what was said in them."""

from __future__ import annotations

from typing import Final

from litestar import delete, get, patch, post
from litestar.response import Response

from app.domain.messages import check_session_id
from app.web.api import json_response
from app.web.auth import caller_of
from app.web.bodies import read_json
from app.web.exchange import exchange_of
from app.web.forms import NewSession, SessionList, SessionTitle
from app.web.parameters import cursor_of, limit_of
from app.web.parts import parts_of
from app.web.problems import AnyRequest

_CREATED: Final = 201


def session_id_of(request: AnyRequest) -> str:
    """Give the path's session id; raise ValidationFailed for what cannot be one."""
    return check_session_id(request.path_params["session_id"])


@post("/api/sessions")
async def create_session(request: AnyRequest) -> Response[bytes]:
    """Make an empty session."""
    wanted = await read_json(request, NewSession, empty=NewSession())
    session = await parts_of(request).chat.create_session(
        caller_of(request), wanted.session_id, wanted.title
    )
    exchange_of(request.scope).note(session_id=session.session_id)
    return json_response(
        session,
        status_code=_CREATED,
        headers={"Location": f"/api/sessions/{session.session_id}"},
    )


@get("/api/sessions")
async def list_sessions(request: AnyRequest) -> Response[bytes]:
    """List the caller's sessions, newest activity first."""
    page = await parts_of(request).chat.sessions(
        caller_of(request), limit_of(request), cursor_of(request, "cursor")
    )
    return json_response(SessionList(page.items, page.next_cursor))


@get("/api/sessions/{session_id:str}")
async def show_session(request: AnyRequest) -> Response[bytes]:
    """Give one session."""
    session_id = session_id_of(request)
    return json_response(await parts_of(request).chat.session(caller_of(request), session_id))


@patch("/api/sessions/{session_id:str}")
async def rename_session(request: AnyRequest) -> Response[bytes]:
    """Change a session's title."""
    session_id = session_id_of(request)
    wanted = await read_json(request, SessionTitle)
    return json_response(
        await parts_of(request).chat.rename_session(caller_of(request), session_id, wanted.title)
    )


@delete("/api/sessions/{session_id:str}", status_code=204)
async def delete_session(request: AnyRequest) -> None:
    """Remove a session with all that was said in it."""
    session_id = session_id_of(request)
    await parts_of(request).chat.deletion.delete(caller_of(request), session_id)


@get("/api/sessions/{session_id:str}/messages")
async def list_messages(request: AnyRequest) -> Response[bytes]:
    """Give messages, oldest first, with an unfinished answer's text so far."""
    session_id = session_id_of(request)
    page = await parts_of(request).chat.history(
        caller_of(request),
        session_id,
        limit_of(request),
        cursor_of(request, "before"),
    )
    return json_response(page)


ROUTES: Final = [
    create_session,
    list_sessions,
    show_session,
    rename_session,
    delete_session,
    list_messages,
]
