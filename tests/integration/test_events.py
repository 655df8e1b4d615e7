"""The session log by server-sent events and by long poll, over a real socket."""

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

from tests.support.waiting import eventually
from tests.support.web import WebNode, answered, ask, following, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebNode]:
    async with serving(
        tmp_path_factory.mktemp("node"), stream_heartbeat_seconds=0.2, connections_per_user=20
    ) as node:
        yield node


@pytest_asyncio.fixture(loop_scope="module")
async def client(node: WebNode) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that acts as a user of this test alone."""
    async with node.client_of(f"user-{uuid.uuid4()}") as client:
        yield client


class TestEvents:
    async def test_headers_retry_welcome_and_history_come_first(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/echo hi")
        await answered(client, asked)
        path = f"/api/sessions/{asked['session_id']}/events"
        async with client.stream("GET", path) as response:
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["cache-control"] == "no-cache, no-transform"
            assert response.headers["x-accel-buffering"] == "no"
            assert "content-encoding" not in response.headers
            lines = response.aiter_lines()
            first = await anext(lines)
        name, _, value = first.partition(": ")
        assert name == "retry"
        assert 1600 <= int(value) <= 2400
        async with following(client, path) as events:
            seen = await until(events, "history")
        assert [event.event for event in seen] == ["welcome", "history"]
        assert json.loads(seen[0].data) == {
            "protocol": 1,
            "session_id": asked["session_id"],
            "node_id": "web-under-test",
            "transport": "sse",
            "heartbeat_seconds": 0.2,
        }
        history = json.loads(seen[-1].data)
        assert history["reason"] == "initial"
        assert history["position"] == seen[-1].id
        assert [message["content"] for message in history["messages"]] == ["/echo hi", "hi"]

    async def test_a_position_gets_exactly_what_came_after_it(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/count 300 10")
        path = f"/api/sessions/{asked['session_id']}/events"
        async with following(client, path) as events:
            seen = [await until(events, "chunk")]
        position, text = seen[0][-1].id, ""
        async with following(client, f"{path}?last_event_id={position}") as events:
            rest = await until(events, "message")
        chunks = [json.loads(event.data) for event in rest if event.event == "chunk"]
        text = "".join(chunk["chunk"] for chunk in chunks)
        final = json.loads(rest[-1].data)
        assert final["content"] == " ".join(str(number) for number in range(1, 301))
        assert final["content"].endswith(text)
        assert chunks[0]["offset"] == len(final["content"]) - len(text)
        epoch, seq = (int(part) for part in position.split("-"))
        ids = [event.id for event in rest if event.event in {"chunk", "message"}]
        assert ids == [f"{epoch}-{seq + number}" for number in range(1, len(ids) + 1)]

    async def test_the_header_wins_over_the_query(self, client: httpx.AsyncClient) -> None:
        asked = await ask(client, "/echo hi")
        await answered(client, asked)
        path = f"/api/sessions/{asked['session_id']}/events"
        stands = (await client.get(f"{path}?transport=poll")).json()["position"]
        polled = await client.get(
            f"{path}?transport=poll&last_event_id=1-1", headers={"Last-Event-ID": stands}
        )
        assert polled.json() == {"events": [], "position": stands, "history": None}

    @pytest.mark.parametrize(
        ("position", "reason"), [("1-1", "epoch"), ("9999999999999-0", "epoch")]
    )
    async def test_a_position_that_the_log_does_not_hold_gets_the_whole_state(
        self, client: httpx.AsyncClient, position: str, reason: str
    ) -> None:
        asked = await ask(client, "/echo hi")
        await answered(client, asked)
        path = f"/api/sessions/{asked['session_id']}/events"
        async with following(client, path, **{"Last-Event-ID": position}) as events:
            seen = await until(events, "history")
        assert json.loads(seen[-1].data)["reason"] == reason

    async def test_a_session_that_has_not_begun_gives_everything_from_0_0(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id = (await client.post("/api/sessions")).json()["session_id"]
        path = f"/api/sessions/{session_id}/events"
        async with following(client, path, **{"Last-Event-ID": "0-0"}) as events:
            await ask(client, "/echo hi", session_id=session_id)
            seen = await until(events, "chunk")
        kinds = [event.event for event in seen if event.id]
        assert kinds == ["message", "start", "chunk"]
        assert [event.id.partition("-")[2] for event in seen if event.id] == ["0", "1", "2"]

    async def test_a_comment_is_sent_while_nothing_happens(self, client: httpx.AsyncClient) -> None:
        session_id = (await client.post("/api/sessions")).json()["session_id"]
        async with client.stream("GET", f"/api/sessions/{session_id}/events") as response:
            async with asyncio.timeout(5):
                async for line in response.aiter_lines():
                    if line == ": heartbeat":
                        return
        pytest.fail("the stream ended without a heartbeat")

    @pytest.mark.parametrize("is_begun", [True, False], ids=["asked in", "never asked in"])
    async def test_a_deleted_session_ends_its_streams_and_then_answers_204(
        self, client: httpx.AsyncClient, *, is_begun: bool
    ) -> None:
        session_id = (await client.post("/api/sessions")).json()["session_id"]
        if is_begun:
            await answered(client, await ask(client, "/echo hi", session_id=session_id))
        path = f"/api/sessions/{session_id}/events"
        async with following(client, path) as events:
            await until(events, "history")
            await client.delete(f"/api/sessions/{session_id}")
            seen = await until(events, "bye")
            assert [event async for event in events] == []
        assert json.loads(seen[-1].data)["reason"] == "session_deleted"
        assert json.loads(seen[-1].data)["reconnect"] is False
        for headers in ({}, {"Accept": "application/json"}, {"Last-Event-ID": "1-1"}):
            answer = await client.get(path, headers=headers)
            assert (answer.status_code, answer.content) == (204, b"")

    async def test_a_stream_ends_when_its_token_does(self, node: WebNode) -> None:
        async with node.client_of("short-lived", exp=int(time.time()) + 2) as client:
            session_id = (await client.post("/api/sessions")).json()["session_id"]
            async with following(client, f"/api/sessions/{session_id}/events") as events:
                seen = await until(events, "bye")
        assert json.loads(seen[-1].data)["reason"] == "token_expired"

    async def test_a_client_that_leaves_frees_its_place_at_once(
        self, node: WebNode, client: httpx.AsyncClient
    ) -> None:
        session_id = (await client.post("/api/sessions")).json()["session_id"]
        gauge = node.node.following.metrics.streams_open.labels(transport="sse")
        before = gauge._value.get()
        async with following(client, f"/api/sessions/{session_id}/events") as events:
            await until(events, "welcome")
            assert gauge._value.get() == before + 1
        await eventually(lambda: gauge._value.get() == before, "the stream is gone", seconds=2)

    async def test_more_streams_than_allowed_are_refused_until_one_ends(
        self, node: WebNode, client: httpx.AsyncClient
    ) -> None:
        session_id = (await client.post("/api/sessions")).json()["session_id"]
        path = f"/api/sessions/{session_id}/events"
        allowed = node.settings.connections_per_user
        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            ready, leave = asyncio.Semaphore(0), asyncio.Event()

            async def hold() -> None:
                async with following(client, path) as events:
                    await until(events, "welcome")
                    ready.release()
                    await leave.wait()

            for _ in range(allowed):
                group.create_task(hold())
            for _ in range(allowed):
                await ready.acquire()
            refused = await client.get(path)
            leave.set()
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_connections")
        assert int(refused.headers["retry-after"]) > 0

        async def welcomed() -> bool:
            return (await client.get(f"{path}?transport=poll")).is_success

        async with asyncio.timeout(5):
            while not await welcomed():
                pass

    async def test_head_says_what_get_would_and_sends_nothing(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id = (await client.post("/api/sessions")).json()["session_id"]
        answer = await client.head(f"/api/sessions/{session_id}/events")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.content == b""

    async def test_http_1_0_is_served_until_the_connection_closes(
        self, node: WebNode, client: httpx.AsyncClient
    ) -> None:
        session_id = (await client.post("/api/sessions")).json()["session_id"]
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(node.url).port)
        authorization = client.headers["authorization"]
        writer.write(
            f"GET /api/sessions/{session_id}/events HTTP/1.0\r\n"
            f"Authorization: {authorization}\r\n\r\n".encode()
        )
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"event: history\n")
        assert b" 200 OK\r\n" in head
        writer.close()
        await writer.wait_closed()


class TestLongPoll:
    async def test_without_a_position_the_whole_state_comes_at_once(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/echo hi")
        await answered(client, asked)
        answer = await client.get(
            f"/api/sessions/{asked['session_id']}/events?wait=30",
            headers={"Accept": "application/json"},
        )
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        polled = answer.json()
        assert polled["events"] == []
        assert polled["position"] == polled["history"]["position"]
        assert polled["history"]["reason"] == "initial"

    async def test_it_waits_for_what_comes_and_gives_the_same_events_as_sse(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id = (await client.post("/api/sessions")).json()["session_id"]
        path = f"/api/sessions/{session_id}/events"
        polling = asyncio.create_task(
            client.get(f"{path}?transport=poll&wait=30&last_event_id=0-0")
        )
        asked = await ask(client, "/echo hi", session_id=session_id)
        first = (await polling).json()
        assert first["events"][0]["type"] == "message"
        assert first["events"][0]["data"] == asked["user_message"]
        await answered(client, asked)
        polled: list[Any] = first["events"]
        position = first["position"]
        async with following(client, path, **{"Last-Event-ID": position}) as events:
            streamed = [event for event in await until(events, "message") if event.id]
        while polled[-1]["id"] != streamed[-1].id:
            more = (await client.get(f"{path}?transport=poll&last_event_id={position}")).json()
            position = more["position"]
            polled += more["events"]
        expected = [(event.id, event.event, json.loads(event.data)) for event in streamed]
        got = [(event["id"], event["type"], event["data"]) for event in polled]
        assert got[-len(expected) :] == expected

    async def test_nothing_new_is_said_after_the_wait(self, client: httpx.AsyncClient) -> None:
        session_id = (await client.post("/api/sessions")).json()["session_id"]
        path = f"/api/sessions/{session_id}/events?transport=poll&last_event_id=0-0"
        answer = await client.get(f"{path}&wait=0.05")
        assert answer.json() == {"events": [], "position": "0-0", "history": None}

    async def test_a_client_that_leaves_while_waiting_frees_its_place(
        self, node: WebNode, client: httpx.AsyncClient
    ) -> None:
        session_id = (await client.post("/api/sessions")).json()["session_id"]
        path = f"/api/sessions/{session_id}/events?transport=poll&last_event_id=0-0&wait=30"
        gauge = node.node.following.metrics.streams_open.labels(transport="poll")
        before = gauge._value.get()
        polling = asyncio.create_task(client.get(path))
        await eventually(lambda: gauge._value.get() == before + 1, "the poll waits")
        polling.cancel()
        await eventually(lambda: gauge._value.get() == before, "the poll is gone", seconds=2)
