"""Clients that others wrote read our streams: npm ``eventsource``, ``httpx-sse``, ``websockets``.

Each is cut off again and again at bytes that fall anywhere, comes back by its own means with the
last position that it was given, and must end with the stored text.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.contract_client import ContractClient
from tests.support.cutter import Cutter, cutting
from tests.support.event_source import npm_event_source
from tests.support.web import WebNode, answered, ask, serving

_RETRY_MS = 20
"""Far below the 3 s after which the npm package would come back if nobody told it."""
_CUTS = 12
_QUESTION = "/count 400 5"
_ANSWER = " ".join(str(number) for number in range(1, 401))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[WebNode]:
    async with serving(tmp_path, stream_retry_ms=_RETRY_MS) as running:
        yield running


def _cuts(longest: int = 2500) -> list[int]:
    """Give lengths that lie past the head of the response, in the middle of anything.

    The first is longer than a ``history`` can be: from there on the client has a position.
    """
    later = [random.randint(longest * 3 // 8, longest) for _ in range(_CUTS - 1)]
    return [len(_ANSWER) + 2 * longest, *later]


def _positions_sent(cutter: Cutter) -> list[str]:
    found = [re.search(rb"(?im)^last-event-id: ([0-9-]+)\r", one) for one in cutter.requests]
    return [one[1].decode() for one in found if one is not None]


async def _stored(node: WebNode, session_id: str) -> dict[str, Any]:
    async with node.client() as http:
        read = (await http.get(f"/api/sessions/{session_id}/messages")).json()
    message: dict[str, Any] = read["items"][-1]
    return message


class TestNpmEventSource:
    async def test_cut_anywhere_it_comes_back_by_itself_and_ends_with_the_stored_text(
        self, node: WebNode
    ) -> None:
        """It knows no rule of ours: ``id:`` and ``retry:`` are all that it goes by."""
        async with node.client() as http, cutting(node.url, _cuts()) as cutter:
            asked = await ask(http, _QUESTION)
            answer_id = asked["assistant_message"]["message_id"]
            path = f"/api/sessions/{asked['session_id']}/events"
            async with npm_event_source(f"{cutter.url}{path}") as source:
                text = await source.complete(answer_id)
        assert text == _ANSWER == (await _stored(node, asked["session_id"]))["content"]
        assert source.client.histories == ["initial"]
        assert len(cutter.requests) == _CUTS + 1
        sent = _positions_sent(cutter)
        assert len(sent) == _CUTS
        assert sent == sorted(sent, key=lambda one: int(one.partition("-")[2]))

    async def test_without_state_it_shows_the_newest_piece_of_full_content(
        self, node: WebNode
    ) -> None:
        async with node.client() as http, cutting(node.url, _cuts()[:3]) as cutter:
            asked = await ask(http, "/count 60 5")
            answer_id = asked["assistant_message"]["message_id"]
            path = f"/api/sessions/{asked['session_id']}/events?content=full"
            async with npm_event_source(f"{cutter.url}{path}") as source:
                text = await source.complete(answer_id)
        assert text == (await _stored(node, asked["session_id"]))["content"]
        assert "chunk" not in source.events

    async def test_a_deleted_session_sends_it_away_for_good(self, node: WebNode) -> None:
        """It comes back after ``bye``, as it comes back after anything; the 204 ends it."""
        async with node.client() as http:
            asked = await ask(http, "/echo short")
            path = f"/api/sessions/{asked['session_id']}/events"
            async with npm_event_source(f"{node.url}{path}") as source:
                await source.complete(asked["assistant_message"]["message_id"])
                await http.delete(f"/api/sessions/{asked['session_id']}")
                await source.eventually(
                    lambda: ("closed", 204) in source.connection, "closed by a 204"
                )
        assert source.events[-1] == "bye"


async def test_httpx_sse_cut_anywhere_resumes_to_the_stored_text(node: WebNode) -> None:
    client = ContractClient()
    async with node.client() as http, cutting(node.url, _cuts()) as cutter:
        asked = await ask(http, _QUESTION)
        answer_id = asked["assistant_message"]["message_id"]
        client.position = asked["position"]
        async with asyncio.timeout(30):
            while not client.is_complete(answer_id):
                await _read_with_httpx_sse(cutter.url, asked["session_id"], client, answer_id)
    assert client.text(answer_id) == _ANSWER
    assert (await _stored(node, asked["session_id"]))["content"] == _ANSWER
    assert client.histories == []
    assert len(cutter.requests) == _CUTS + 1


async def _read_with_httpx_sse(
    url: str, session_id: str, client: ContractClient, answer_id: str
) -> None:
    headers = {} if client.position is None else {"Last-Event-ID": client.position}
    path = f"/api/sessions/{session_id}/events"
    try:
        async with (
            httpx.AsyncClient(base_url=url, timeout=10) as http,
            aconnect_sse(http, "GET", path, headers=headers) as source,
        ):
            async for event in source.aiter_sse():
                # An empty one stands for a `retry:` or a comment alone; it is none of ours.
                if event.data:
                    data = event.json()
                    known = event.event in {"welcome", "bye", "error"}
                    client.apply(None if known else event.id, event.event, data)
                if client.is_complete(answer_id):
                    return
    except httpx.TransportError:
        return


@pytest.mark.parametrize(("deflate", "longest"), [(False, 2500), (True, 1000)])
async def test_websockets_cut_anywhere_resumes_to_the_stored_text(
    tmp_path: Path, *, deflate: bool, longest: int
) -> None:
    """With its defaults the package offers compression; it is used where the setting says so."""
    client = ContractClient()
    async with serving(tmp_path, websocket_deflate=deflate) as node, node.client() as http:
        asked = await ask(http, _QUESTION)
        answer_id = asked["assistant_message"]["message_id"]
        client.position = asked["position"]
        async with cutting(node.url, _cuts(longest)) as cutter, asyncio.timeout(30):
            while not client.is_complete(answer_id):
                await _read_with_websockets(
                    cutter.url, asked["session_id"], client, answer_id, deflate=deflate
                )
            assert (await _stored(node, asked["session_id"]))["content"] == _ANSWER
    assert client.text(answer_id) == _ANSWER
    assert client.histories == []
    assert len(cutter.requests) == _CUTS + 1
    assert node.complaints() == []


async def _read_with_websockets(
    url: str, session_id: str, client: ContractClient, answer_id: str, *, deflate: bool
) -> None:
    address = f"{url.replace('http', 'ws')}/ws/chat?session_id={session_id}"
    try:
        async with connect(f"{address}&last_event_id={client.position}") as socket:
            assert [one.name for one in socket.protocol.extensions] == (
                ["permessage-deflate"] if deflate else []
            )
            async for text in socket:
                frame = json.loads(text)
                client.apply(frame.get("id"), frame["type"], frame["data"])
                if client.is_complete(answer_id):
                    return
    except ConnectionClosed:
        return


class TestDeflate:
    async def test_a_whole_state_takes_a_fraction_of_the_bytes(self, tmp_path: Path) -> None:
        async with serving(tmp_path, websocket_deflate=True) as node, node.client() as http:
            asked = await ask(http, "/count 2000 0")
            await answered(http, asked)
            async with cutting(node.url) as cutter:
                for compression in (None, "deflate"):
                    async with _connected(cutter.url, asked, compression) as socket:
                        while json.loads(await socket.recv())["type"] != "history":
                            pass
        plain, packed = cutter.from_node
        assert packed < plain / 2

    async def test_a_small_frame_that_grows_too_large_is_refused_like_a_large_one(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path, websocket_deflate=True) as node, node.client() as http:
            asked = await ask(http, "/echo short")
            async with _connected(node.url, asked, "deflate") as socket:
                await socket.send(json.dumps({"type": "chat", "message": "x" * 70_000}))
                with pytest.raises(ConnectionClosed):
                    async for _ in socket:
                        pass
                assert socket.close_code == 4413
            assert node.complaints() == []


def _connected(url: str, asked: dict[str, Any], compression: str | None) -> connect:
    address = f"{url.replace('http', 'ws')}/ws/chat?session_id={asked['session_id']}"
    return connect(address, compression=compression)
