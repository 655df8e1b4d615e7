"""Streams of a browser that is signed in: from our own pages only, and for as long as it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosed

from app.accounts.keys import OwnKeys
from app.accounts.tokens import Expected, TokenIssuer
from tests.support.web import SECRET, WebNode, following, serving, token, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "http://chat.example"
OWN = {"Origin": ORIGIN}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebNode]:
    async with serving(tmp_path_factory.mktemp("node"), worker=False, public_origin=ORIGIN) as node:
        yield node


class Browser:
    """One that is signed in, with a conversation."""

    def __init__(self, node: WebNode) -> None:
        self.node = node
        self.user_id = f"user-{uuid.uuid4()}"
        self.session_id = str(uuid.uuid4())

    def cookie(self, *, ttl_seconds: int = 900, sign_in_id: str | None = "s-1") -> dict[str, str]:
        issued = TokenIssuer(OwnKeys(SECRET.encode()), Expected()).issue(
            user_id=self.user_id,
            name="ada",
            roles=[],
            sign_in_id=sign_in_id,
            ttl_seconds=ttl_seconds,
        )
        return {"Cookie": f"throughline={issued}"}

    async def converse(self) -> None:
        async with self.node.client_of(self.user_id) as client:
            await client.post("/api/sessions", json={"session_id": self.session_id})

    @asynccontextmanager
    async def socket(self, **headers: str) -> AsyncIterator[ClientConnection]:
        url = self.node.url.replace("http", "ws")
        async with connect_socket(
            f"{url}/ws/chat?session_id={self.session_id}", additional_headers=headers
        ) as socket:
            yield socket


@pytest_asyncio.fixture(loop_scope="module")
async def browser(node: WebNode) -> Browser:
    browser = Browser(node)
    await browser.converse()
    return browser


async def _until(socket: ClientConnection, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            frame: dict[str, Any] = json.loads(await socket.recv())
            if frame["type"] == kind:
                return frame


async def _close_code(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "https://chat.example",
        "http://chat.example.evil.example",
        "http://evil.example",
        "http://chat.example:8080",
    ],
)
async def test_a_socket_with_a_cookie_must_be_of_our_own_page(
    browser: Browser, origin: str | None
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    # What a browser says of itself elsewhere is no substitute here: it does not say it here.
    for more in ({}, {"Sec-Fetch-Site": "same-origin"}):
        async with browser.socket(**browser.cookie(), **headers, **more) as socket:
            assert await _close_code(socket) == 4403
    async with browser.socket(**browser.cookie(), **OWN) as socket:
        assert (await _until(socket, "welcome"))["data"]["session_id"] == browser.session_id


async def test_a_header_wins_over_the_cookie(browser: Browser) -> None:
    stranger = {"Authorization": f"Bearer {token('stranger')}"}
    async with browser.socket(**browser.cookie(), **OWN, **stranger) as socket:
        assert await _close_code(socket) == 4404
    async with browser.node.client(**browser.cookie(), **stranger) as client:
        assert (await client.get(f"/api/sessions/{browser.session_id}")).status_code == 404


async def test_what_is_no_cookie_of_ours_is_refused_in_development_too(browser: Browser) -> None:
    for cookie in (
        {"Cookie": "throughline=nonsense"},
        {"Cookie": f"throughline={token(browser.user_id)}"},
        {"Cookie": f"throughline={token(browser.user_id, key='x' * 64, sid='s-1')}"},
        browser.cookie(sign_in_id=None),
        # It has expired, and no row says that the sign-in goes on.
        browser.cookie(ttl_seconds=-60),
        browser.cookie(ttl_seconds=1),
    ):
        async with browser.socket(**cookie, **OWN) as socket:
            assert await _close_code(socket) == 4401, cookie
        async with browser.node.client(**cookie) as client:
            assert (await client.get("/api/sessions")).status_code == 401, cookie


async def test_only_the_same_user_may_go_on(browser: Browser) -> None:
    async with browser.socket(**browser.cookie(), **OWN) as socket:
        await _until(socket, "history")
        await socket.send(json.dumps({"type": "auth", "token": token(browser.user_id)}))
        assert (await _until(socket, "ack"))["data"]["user_id"] == browser.user_id
        await socket.send(json.dumps({"type": "auth", "token": token("stranger")}))
        assert await _close_code(socket) == 4401


async def test_what_is_to_be_renewed_is_asked_to_come_back(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not refused: the browser has another token by then, or is told when it comes."""
    following_all = browser.node.node.following
    opened = following_all.open

    async def short_lived(caller: Any, *given: Any, **named: Any) -> Any:
        return await opened(caller._replace(expires_at=time.time() + 0.5), *given, **named)

    monkeypatch.setattr(following_all, "open", short_lived)
    async with browser.node.client(**browser.cookie()) as client:
        path = f"/api/sessions/{browser.session_id}/events"
        async with following(client, path) as events:
            bye = json.loads((await until(events, "bye"))[-1].data)
        assert (bye["reason"], bye["reconnect"]) == ("lifetime", True)
        answer = await client.get(f"{path}?transport=poll&last_event_id=0-0&wait=1")
        assert answer.json()["events"] == []
