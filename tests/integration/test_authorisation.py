"""Who may call what: every route is in this table, and a route that is not fails the test.

Without a credential only what is public answers. With one, what belongs to somebody else is not
there: a 404 that does not differ from the one for what was never made, whatever is asked of it.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from litestar.routes import HTTPRoute, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.web import WebNode, answered, ask, serving, token

_PUBLIC: Final = frozenset(
    {
        ("GET", "/health"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
        ("GET", "/schema"),
        ("GET", "/schema/openapi.json"),
        ("GET", "/static/{name}"),
        ("GET", "/favicon.ico"),
    }
)
"""What anybody may call."""

_ENTRANCES: Final = frozenset(
    {
        ("GET", "/sign-in"),
        ("POST", "/sign-in"),
        ("GET", "/sign-in/link"),
        ("GET", "/sign-up"),
        ("POST", "/sign-up"),
        ("POST", "/auth/token"),
    }
)
"""Where strangers become somebody; empty-handed they get nothing there."""

_OWN: Final = frozenset(
    {
        ("GET", "/"),
        ("GET", "/account"),
        ("GET", "/account/delete"),
        ("POST", "/account/delete"),
        ("POST", "/account/password"),
        ("POST", "/account/sign-out-everywhere"),
        ("POST", "/sign-out"),
        ("GET", "/account/export"),
        ("GET", "/api/account/export"),
        ("GET", "/conversations"),
        ("GET", "/api/models"),
        ("GET", "/api/sessions"),
        ("POST", "/api/sessions"),
        ("POST", "/api/chat"),
        ("POST", "/auth/ticket"),
        ("POST", "/chat"),
    }
)
"""What has no owner in its path: it acts for the caller alone."""

_FORM: Final[dict[str, Any]] = {"data": {"sent": "by a form"}}

_OF_A_SESSION: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("GET", "/api/sessions/{session_id}"): {},
    ("PATCH", "/api/sessions/{session_id}"): {"json": {"title": "mine now"}},
    ("DELETE", "/api/sessions/{session_id}"): {},
    ("GET", "/api/sessions/{session_id}/messages"): {},
    ("GET", "/api/sessions/{session_id}/events"): {"headers": {"Accept": "text/event-stream"}},
    ("GET", "/chat/{session_id}"): {},
    ("GET", "/chat/{session_id}/stream"): {},
    ("GET", "/chat/{session_id}/poll"): {},
    ("POST", "/chat/{session_id}/messages"): {"data": {"message": "mine now"}},
    ("POST", "/chat/{session_id}/stop"): _FORM,
    ("POST", "/chat/{session_id}/rename"): {"data": {"title": "mine now"}},
    ("POST", "/chat/{session_id}/delete"): _FORM,
    ("POST", "/chat/{session_id}/restore"): _FORM,
}
"""What names a session in its path, with what is sent along."""

_OF_A_MESSAGE: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/api/chat/{message_id}/cancel"): {},
    ("POST", "/api/chat/{message_id}/regenerate"): {},
    ("POST", "/chat/messages/{message_id}/stop"): _FORM,
    ("POST", "/chat/messages/{message_id}/regenerate"): _FORM,
    ("GET", "/chat/messages/{message_id}/text"): {},
}
"""What names a message in its path."""

_SOCKETS: Final = {"/ws/chat"}
_NAMED: Final = [*_OF_A_SESSION.items(), *_OF_A_MESSAGE.items()]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[WebNode]:
    async with serving(
        tmp_path, environment="production", public_origin="https://chat.example.org"
    ) as running:
        yield running


def _routes(node: WebNode) -> Iterator[tuple[str, str]]:
    for route in node.node.application.routes:
        if isinstance(route, HTTPRoute):
            yield from itertools.product(set(route.methods) - {"OPTIONS"}, [route.path_format])


async def test_every_route_is_in_the_table(node: WebNode) -> None:
    judged = _PUBLIC | _ENTRANCES | _OWN | _OF_A_SESSION.keys() | _OF_A_MESSAGE.keys()
    assert set(_routes(node)) == judged
    sockets = {
        route.path_format
        for route in node.node.application.routes
        if isinstance(route, WebSocketRoute)
    }
    assert sockets == _SOCKETS


async def test_without_a_credential_only_what_is_public_answers(node: WebNode) -> None:
    before = node.rows()
    async with node.client() as nobody:
        for method, path in _routes(node):
            filled = path.format(session_id="s-1", message_id="m-1", name="app.css")
            answer = await nobody.request(method, filled)
            if (method, path) in _PUBLIC:
                assert answer.is_success, (method, path)
            elif (method, path) in _ENTRANCES:
                assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, (method, path)
                given = {one.partition("=")[0] for one in answer.headers.get_list("set-cookie")}
                assert given <= {"csrftoken"}, (method, path)
                assert "access_token" not in answer.text, (method, path)
            else:
                assert _is_refused(answer), (method, path, answer.status_code)
    assert node.rows() == before
    async with connect(_socket(node, "s-1")) as socket:
        await socket.send('{"type": "chat", "message": "let me in"}')
        assert await _close_code(socket) == 4401


def _is_refused(answer: httpx.Response) -> bool:
    """Tell whether it says who are you, with a problem or by the way to the sign-in page."""
    if answer.status_code == HTTPStatus.SEE_OTHER:
        return answer.headers["location"].startswith("/sign-in")
    return answer.status_code == HTTPStatus.UNAUTHORIZED


async def test_what_is_somebody_elses_is_as_if_it_had_never_been(node: WebNode) -> None:
    """Its owner sees it unchanged afterwards."""
    async with node.client_of("owner") as owner, node.client_of("stranger") as stranger:
        asked = await ask(owner, "/echo secret")
        final = await answered(owner, asked)
        session_id = asked["session_id"]
        ids = {"session_id": session_id, "message_id": final["message_id"]}
        before, stored = await _seen(owner, session_id), node.rows()
        missing = {"session_id": "never-made", "message_id": "made-never"}
        for (method, path), sent in _NAMED:
            other = await stranger.request(method, path.format(**ids), **sent)
            never = await stranger.request(method, path.format(**missing), **sent)
            assert other.status_code == HTTPStatus.NOT_FOUND, (method, path)
            assert _without_names(other, ids) == _without_names(never, missing), (method, path)
        question = {"session_id": session_id, "message": "mine now"}
        assert (await stranger.post("/api/chat", json=question)).status_code == 404
        headers = {"Authorization": f"Bearer {token('stranger')}"}
        async with connect(_socket(node, session_id), additional_headers=headers) as socket:
            assert await _close_code(socket) == 4404
        assert await _seen(owner, session_id) == before
        assert {**node.rows(), "users": 0} == {**stored, "users": 0}


async def _seen(owner: httpx.AsyncClient, session_id: str) -> Any:
    return [
        (await owner.get(f"/api/sessions/{session_id}{part}")).json() for part in ("", "/messages")
    ]


def _without_names(answer: httpx.Response, names: dict[str, str]) -> str:
    """Give the body without what differs from one request to the next."""
    text = answer.text.replace(answer.headers["x-request-id"], "REQUEST")
    for name, value in names.items():
        text = text.replace(value, name)
    return text


async def test_what_has_no_owner_in_its_path_acts_for_the_caller_alone(node: WebNode) -> None:
    async with node.client_of("owner") as owner, node.client_of("stranger") as stranger:
        asked = await ask(owner, "/echo an owl hoots")
        await answered(owner, asked)
        assert (await stranger.get("/api/sessions")).json()["items"] == []
        for page in ("/", "/?q=owl", "/conversations", "/conversations?q=owl", "/account/export"):
            assert asked["session_id"] in (await owner.get(page)).text, page
            text = (await stranger.get(page)).text
            assert asked["session_id"] not in text, page
            assert "hoots" not in text, page


def _socket(node: WebNode, session_id: str) -> str:
    return f"{node.url.replace('http', 'ws')}/ws/chat?session_id={session_id}"


async def _close_code(socket: Any) -> int:
    with pytest.raises(ConnectionClosed):
        async for _ in socket:
            pass
    code: int = socket.close_code
    return code
