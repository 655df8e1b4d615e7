"""A credential that ends while it is in use: every transport ends with it, on every node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosed

from app.accounts.keys import OwnKeys
from app.accounts.tokens import Expected, TokenIssuer
from app.streams import keys, revocations
from app.streams.connection import connect
from app.streams.revocations import Revocations
from tests.support.waiting import eventually
from tests.support.web import SECRET, WebNode, beside, following, serving, token, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ISSUER = TokenIssuer(OwnKeys(SECRET.encode()), Expected())
# Longer than any of these tests: what ends a stream is the revocation.
HEARTBEAT_SECONDS = 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[WebNode]]:
    # A node looks so rarely that what it knows it was told.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revocations, "REFRESH_SECONDS", 600)
        async with (
            serving(
                tmp_path_factory.mktemp("nodes"),
                worker=False,
                stream_heartbeat_seconds=HEARTBEAT_SECONDS,
            ) as one,
            beside(one) as two,
        ):
            yield [one, two]


@pytest_asyncio.fixture(loop_scope="module")
async def redis(nodes: list[WebNode]) -> AsyncIterator[Redis]:
    client = connect(nodes[0].settings.redis_address, timeout_seconds=10, max_connections=2)
    yield client
    await client.aclose(close_connection_pool=True)


class Visit:
    """Somebody who is signed in, and has a conversation."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.sign_in_id = f"sign-in-of-{user_id}"
        self.session_id = f"session-of-{user_id}".replace("_", "-")
        self.token = self.fresh()

    def fresh(self) -> str:
        return ISSUER.issue(
            user_id=self.user_id,
            name=self.user_id,
            roles=[],
            sign_in_id=self.sign_in_id,
            ttl_seconds=900,
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@asynccontextmanager
async def visiting(node: WebNode, user_id: str) -> AsyncIterator[Visit]:
    visit = Visit(user_id)
    async with node.client(**visit.headers) as client:
        made = await client.post("/api/sessions", json={"session_id": visit.session_id})
        assert made.status_code == 201, made.text
    yield visit


async def _sse(node: WebNode, visit: Visit, path: str, opened: asyncio.Event) -> Any:
    async with node.client(**visit.headers) as client:
        client.timeout = httpx.Timeout(30)
        async with following(client, path) as events:
            if "/api/" in path:
                await until(events, "history")
            opened.set()
            seen = [event async for event in events]
    return json.loads(seen[-1].data)


async def _api_stream(node: WebNode, visit: Visit, opened: asyncio.Event) -> None:
    bye = await _sse(node, visit, f"/api/sessions/{visit.session_id}/events", opened)
    assert bye == {"reason": "token_expired", "reconnect": False, "after_ms": 0}


async def _poll(node: WebNode, visit: Visit, opened: asyncio.Event, path: str) -> None:
    async with node.client(**visit.headers) as client:
        client.timeout = httpx.Timeout(60)
        opened.set()
        answer = await client.get(f"{path}?transport=poll&wait=30&last_event_id=0-0")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def _api_poll(node: WebNode, visit: Visit, opened: asyncio.Event) -> None:
    await _poll(node, visit, opened, f"/api/sessions/{visit.session_id}/events")


async def _page_poll(node: WebNode, visit: Visit, opened: asyncio.Event) -> None:
    await _poll(node, visit, opened, f"/chat/{visit.session_id}/poll")


async def _page_stream(node: WebNode, visit: Visit, opened: asyncio.Event) -> None:
    async with (
        node.client(**visit.headers) as client,
        client.stream("GET", f"/chat/{visit.session_id}/stream") as response,
    ):
        opened.set()
        said = (await response.aread()).decode()
    assert "token_expired" in said


async def _socket(
    node: WebNode, visit: Visit, opened: asyncio.Event, *, content: str = "delta"
) -> None:
    address = f"{node.url.replace('http', 'ws')}/ws/chat?session_id={visit.session_id}"
    async with connect_socket(
        f"{address}&content={content}", additional_headers=visit.headers
    ) as socket:
        opened.set()
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
    assert socket.close_code == 4401


async def _page_socket(node: WebNode, visit: Visit, opened: asyncio.Event) -> None:
    await _socket(node, visit, opened, content="html")


TRANSPORTS: list[Callable[[WebNode, Visit, asyncio.Event], Coroutine[Any, Any, None]]] = [
    _api_stream,
    _api_poll,
    _page_stream,
    _page_poll,
    _socket,
    _page_socket,
]


def _open(node: WebNode) -> int:
    return len(node.node.following._open)


async def _revoked(node: WebNode, headers: dict[str, str]) -> bool:
    async with node.client(**headers) as client:
        return (await client.get("/api/sessions")).status_code == 401


@pytest.mark.parametrize("kind", ["token", "sign_in", "user"])
async def test_a_revocation_ends_what_is_open_on_every_node(
    nodes: list[WebNode], redis: Redis, kind: str
) -> None:
    async with visiting(nodes[0], f"revoked-{kind}") as visit, visiting(nodes[0], f"not-{kind}"):
        others = Visit(f"not-{kind}")
        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            opened = []
            for node in nodes:
                for transport in TRANSPORTS:
                    opened.append(asyncio.Event())
                    group.create_task(transport(node, visit, opened[-1]))
            # One that is another's stays.
            async with (
                nodes[1].client(**others.headers) as client,
                following(client, f"/api/sessions/{others.session_id}/events") as events,
            ):
                await until(events, "history")
                for one in opened:
                    await one.wait()
                await eventually(
                    lambda: _open(nodes[0]) == 6, "all are open on the first", seconds=20
                )
                await eventually(
                    lambda: _open(nodes[1]) == 7, "all are open on the second", seconds=20
                )
                # As another process does it: each node is told by publication alone.
                revoker = Revocations(redis)
                match kind:
                    case "token":
                        claims = jwt.decode(visit.token, options={"verify_signature": False})
                        await revoker.revoke_token(claims["jti"], seconds=900)
                    case "sign_in":
                        await revoker.revoke_sign_in(visit.sign_in_id, seconds=900)
                    case _:
                        await revoker.revoke_user(visit.user_id, seconds=900)
                await eventually(
                    lambda: (_open(nodes[0]), _open(nodes[1])) == (0, 1),
                    "they have ended",
                    seconds=20,
                )
        for node in nodes:
            assert await _revoked(node, visit.headers)
            fresh = {"Authorization": f"Bearer {visit.fresh()}"}
            assert await _revoked(node, fresh) == (kind == "sign_in")
            assert not await _revoked(node, others.headers)


async def test_a_lost_publication_is_found_by_looking(
    nodes: list[WebNode], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "REFRESH_SECONDS", 0.05)
    async with beside(nodes[0]) as node, visiting(node, "untold") as visit:
        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            opened = asyncio.Event()
            group.create_task(_api_stream(node, visit, opened))
            await opened.wait()
            ends = time.time() + 900
            await redis.zadd(keys.REVOKED, {f'["sign_in","{visit.sign_in_id}"]': ends})
            await redis.expireat(keys.REVOKED, int(ends))
            await redis.set(keys.REVOKED_VERSION, "another", ex=900)
        assert await _revoked(node, visit.headers)


async def test_a_long_poll_ends_with_its_token(nodes: list[WebNode]) -> None:
    async with visiting(nodes[0], "polls") as visit:
        short = {"Authorization": f"Bearer {token('polls', exp=int(time.time()) + 2)}"}
        path = f"/api/sessions/{visit.session_id}/events?transport=poll&last_event_id=0-0&wait=30"
        async with nodes[0].client(**short) as client:
            client.timeout = httpx.Timeout(60)
            assert (await client.get(path)).status_code == 401


async def test_a_socket_obeys_nobody_whose_token_was_revoked(
    nodes: list[WebNode], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the moment before its stream ends: here that never comes."""
    monkeypatch.setattr(nodes[0].node.following, "end_revoked", lambda: None)
    monkeypatch.setattr(nodes[0].node.following, "is_revoked", lambda _: False)
    async with visiting(nodes[0], "obeyed") as visit:
        address = f"{nodes[0].url.replace('http', 'ws')}/ws/chat?session_id={visit.session_id}"
        async with connect_socket(address, additional_headers=visit.headers) as socket:
            await socket.send('{"type": "ping"}')
            async with asyncio.timeout(20):
                while json.loads(await socket.recv())["type"] != "pong":
                    pass
                await Revocations(redis).revoke_user(visit.user_id)
                while not await _revoked(nodes[0], visit.headers):
                    pass
                await socket.send('{"type": "chat", "message": "/echo am I still heard?"}')
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        assert json.loads(await socket.recv())["type"] != "ack"
        assert socket.close_code == 4401
        async with nodes[0].client(Authorization=f"Bearer {visit.fresh()}") as client:
            stored = (await client.get(f"/api/sessions/{visit.session_id}/messages")).json()
        assert stored["items"] == []
