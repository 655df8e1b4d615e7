"""Tickets: one use, half a minute, one caller, two routes."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosed

from app.domain.caller import Caller
from app.streams import keys
from app.streams.connection import connect
from app.streams.revocations import Revocations
from app.streams.tickets import Tickets
from tests.support.web import WebNode, beside, following, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebNode]:
    async with serving(
        tmp_path_factory.mktemp("node"), worker=False, public_origin="https://chat.example"
    ) as node:
        yield node


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(node: WebNode) -> AsyncIterator[WebNode]:
    async with beside(node) as other:
        yield other


@pytest_asyncio.fixture(loop_scope="module")
async def redis(node: WebNode) -> AsyncIterator[Redis]:
    client = connect(node.settings.redis_address, timeout_seconds=10, max_connections=2)
    yield client
    await client.aclose(close_connection_pool=True)


@pytest_asyncio.fixture(loop_scope="module")
async def ada(node: WebNode) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that acts as a user of this test alone."""
    async with node.client_of(f"ada-{uuid.uuid4()}") as client:
        yield client


async def _session(client: httpx.AsyncClient) -> str:
    made = await client.post("/api/sessions")
    return str(made.json()["session_id"])


async def _ticket(client: httpx.AsyncClient) -> str:
    answer = await client.post("/auth/ticket")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    given = answer.json()
    assert given["expires_in"] == 30
    return str(given["ticket"])


def _stream(session_id: str, ticket: str, more: str = "") -> str:
    return f"/api/sessions/{session_id}/events?ticket={ticket}{more}"


async def _close_code(node: WebNode, query: str, **headers: str) -> int | None:
    url = f"{node.url.replace('http', 'ws')}/ws/chat?{query}"
    async with connect_socket(url, additional_headers=headers) as socket:
        try:
            async with asyncio.timeout(20):
                while json.loads(await socket.recv())["type"] != "history":
                    pass
        except ConnectionClosed:
            return socket.close_code
    return None


async def test_a_ticket_opens_a_stream_once_on_whichever_node(
    node: WebNode, other: WebNode, ada: httpx.AsyncClient
) -> None:
    session_id, ticket = await _session(ada), await _ticket(ada)
    # From another site's page, too: it shows what no browser brings along by itself.
    async with other.client(Origin="https://elsewhere.example") as nobody:
        async with following(nobody, _stream(session_id, ticket)) as events:
            await until(events, "history")
        again = await nobody.get(_stream(session_id, ticket))
        assert (again.status_code, again.json()["code"]) == (401, "unauthenticated")
    async with node.client() as nobody:
        assert (await nobody.get(_stream(session_id, ticket))).status_code == 401


async def test_a_ticket_opens_a_poll_and_a_socket(node: WebNode, ada: httpx.AsyncClient) -> None:
    session_id = await _session(ada)
    async with node.client() as nobody:
        polled = await nobody.get(_stream(session_id, await _ticket(ada), "&transport=poll"))
    assert polled.json()["history"]["reason"] == "initial"
    query = f"session_id={session_id}&ticket={await _ticket(ada)}"
    assert await _close_code(node, query, Origin="https://elsewhere.example") is None
    assert await _close_code(node, query) == 4401


async def test_of_two_that_use_it_at_once_one_succeeds(
    node: WebNode, other: WebNode, ada: httpx.AsyncClient
) -> None:
    session_id = await _session(ada)
    async with node.client() as here, other.client() as there:
        for _ in range(5):
            path = _stream(session_id, await _ticket(ada), "&transport=poll")
            answers = await asyncio.gather(*(one.get(path) for one in (here, there) * 3))
            assert sorted(one.status_code for one in answers) == [200, 401, 401, 401, 401, 401]


async def test_it_is_good_for_half_a_minute_and_redis_cannot_tell_it(
    node: WebNode, ada: httpx.AsyncClient, redis: Redis
) -> None:
    session_id, ticket = await _session(ada), await _ticket(ada)
    held: list[bytes] = [key async for key in redis.scan_iter(keys.ticket("*"))]
    assert held
    for key in held:
        assert 0 < await redis.pttl(key) <= 30_000
        assert ticket.encode() not in key
        value: Any = await redis.get(key)
        assert value
        assert ticket.encode() not in value
        # As if that time had passed.
        await redis.pexpireat(key, 1)
    async with node.client() as nobody:
        assert (await nobody.get(_stream(session_id, ticket))).status_code == 401


async def test_it_stands_for_its_caller_and_nobody_else(
    node: WebNode, ada: httpx.AsyncClient
) -> None:
    session_id = await _session(ada)
    async with node.client_of("bob") as bob, node.client() as nobody:
        wrong = await nobody.get(_stream(session_id, await _ticket(bob)))
        assert (wrong.status_code, wrong.json()["code"]) == (404, "not_found")
        assert await _close_code(node, f"session_id={session_id}&ticket={await _ticket(bob)}") == (
            4404
        )
        # Where there is a header, it decides, and the ticket stays unused.
        ticket = await _ticket(ada)
        assert (await bob.get(_stream(session_id, ticket))).status_code == 404
        assert (await nobody.get(_stream(session_id, ticket, "&transport=poll"))).is_success


@pytest.mark.parametrize("ticket", ["", "x", "x" * 43, "é" * 43, "*", "%00" * 43])
async def test_what_is_no_ticket_is_refused_in_development_too(node: WebNode, ticket: str) -> None:
    async with node.client() as dev:
        session_id = await _session(dev)
        assert (await dev.get(_stream(session_id, ticket))).status_code == 401
        assert await _close_code(node, f"session_id={session_id}&ticket={ticket}") == 4401


async def test_a_token_is_no_ticket_and_two_are_none(node: WebNode, ada: httpx.AsyncClient) -> None:
    session_id = await _session(ada)
    jwt = ada.headers["authorization"].removeprefix("Bearer ")
    one, two = await _ticket(ada), await _ticket(ada)
    async with node.client() as nobody:
        assert (await nobody.get(_stream(session_id, jwt))).status_code == 401
        assert (await nobody.get(_stream(session_id, one, f"&ticket={two}"))).status_code == 401


async def test_other_routes_take_none(node: WebNode, ada: httpx.AsyncClient) -> None:
    session_id, ticket = await _session(ada), await _ticket(ada)
    async with node.client() as nobody:
        for path in (f"/api/sessions/{session_id}", f"/chat/{session_id}/poll"):
            assert (await nobody.get(f"{path}?ticket={ticket}")).status_code == 404
        assert (await nobody.get(_stream(session_id, ticket, "&transport=poll"))).is_success


async def test_it_ends_with_the_credential_that_it_was_made_with(
    node: WebNode, redis: Redis
) -> None:
    token_id = f"t-{uuid.uuid4()}"
    async with (
        node.client_of("carol", jti=token_id, iat=time.time()) as carol,
        node.client() as nobody,
    ):
        session_id = await _session(carol)
        ended = await Tickets(redis).issue(Caller("carol", "carol", expires_at=time.time() - 1))
        assert (await nobody.get(_stream(session_id, ended))).status_code == 401

        path = _stream(session_id, await _ticket(carol))
        unused = await _ticket(carol)
        async with following(nobody, path) as events:
            await until(events, "history")
            await Revocations(redis).revoke_token(token_id, seconds=60)
            bye = (await until(events, "bye"))[-1]
            assert json.loads(bye.data)["reason"] == "token_expired"
        assert (await nobody.get(_stream(session_id, unused))).status_code == 401


async def test_the_development_user_has_tickets_and_strangers_have_none(
    node: WebNode, redis: Redis
) -> None:
    async with node.client() as dev:
        session_id = await _session(dev)
        assert (
            await dev.get(_stream(session_id, await _ticket(dev), "&transport=poll"))
        ).is_success
        assert (
            await dev.post("/auth/ticket", headers={"Origin": "https://evil.example"})
        ).status_code == 403
        assert (
            await dev.post("/auth/ticket", headers={"Authorization": "Bearer x"})
        ).status_code == 401


async def test_it_is_in_no_log(node: WebNode, ada: httpx.AsyncClient) -> None:
    session_id, ticket = await _session(ada), await _ticket(ada)
    async with node.client() as nobody:
        for _ in range(2):
            await nobody.get(_stream(session_id, ticket, "&transport=poll"))
    assert any(line.get("session_id") == session_id for line in node.logged)
    assert ticket not in repr(node.logged)


async def test_without_redis_it_is_unavailable(node: WebNode) -> None:
    async with beside(node, redis_url=f"unix://{node.settings.data_dir}/nobody.sock") as cut_off:
        async with cut_off.client_of("ada") as client:
            answer = await client.post("/auth/ticket")
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        async with cut_off.client() as nobody:
            answer = await nobody.get(_stream("s-1", "x" * 43))
            assert answer.status_code == 503
