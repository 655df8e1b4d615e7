"""``/ws/chat`` as section 6 of the contract has it: the same log, both ways, named ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.domain.errors import Unavailable
from app.domain.messages import Message
from app.web import ws
from tests.support.contract_client import ContractClient
from tests.support.waiting import eventually
from tests.support.web import WebNode, serving, token


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[WebNode]:
    async with serving(tmp_path) as running:
        yield running


@asynccontextmanager
async def _opened(
    node: WebNode, query: str, headers: dict[str, str] | None = None
) -> AsyncIterator[ClientConnection]:
    url = node.url.replace("http", "ws")
    async with connect(
        f"{url}/ws/chat?{query}", additional_headers=headers, max_size=None
    ) as socket:
        yield socket


async def _frame(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        read: dict[str, Any] = json.loads(await socket.recv())
        return read


async def _until(socket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    frames = []
    while True:
        frames.append(await _frame(socket))
        if frames[-1]["type"] == kind:
            return frames


async def _close_code(socket: ClientConnection) -> int:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await _frame(socket)
    assert socket.close_code is not None
    return socket.close_code


async def _new_session(node: WebNode, session_id: str = "s-1", user: str | None = None) -> str:
    client = node.client() if user is None else node.client_of(user)
    async with client as http:
        made = await http.post("/api/sessions", json={"session_id": session_id})
    assert made.status_code == 201, made.text
    return session_id


async def test_ask_stream_and_resume_over_one_log(node: WebNode) -> None:
    """Asked over the socket, cut in the middle, resumed by position: nothing lost or repeated."""
    await _new_session(node)
    client = ContractClient()
    async with _opened(node, "session_id=s-1") as socket:
        welcome, history = await _frame(socket), await _frame(socket)
        assert (welcome["type"], welcome["data"]["transport"]) == ("welcome", "websocket")
        assert (history["type"], history["id"]) == ("history", "0-0")
        client.apply(history["id"], "history", history["data"])
        await socket.send(
            json.dumps({"type": "chat", "message": "/count 40 5", "client_message_id": "k-1"})
        )
        answer_id = None
        while len(client.applied) < 15 or answer_id is None:
            frame = await _frame(socket)
            if frame["type"] == "ack":
                answer_id = frame["data"]["assistant_message"]["message_id"]
            else:
                client.apply(frame.get("id"), frame["type"], frame["data"])
    async with _opened(node, f"session_id=s-1&last_event_id={client.position}") as socket:
        while not client.is_complete(answer_id):
            frame = await _frame(socket)
            client.apply(frame.get("id"), frame["type"], frame["data"])
        await socket.send(
            json.dumps({"type": "chat", "message": "/count 40 5", "client_message_id": "k-1"})
        )
        again = (await _until(socket, "ack"))[-1]["data"]
    assert client.histories == ["initial"]
    assert client.text(answer_id) == " ".join(str(number) for number in range(1, 41))
    assert again["assistant_message"]["message_id"] == answer_id


async def test_a_stop_over_the_socket(node: WebNode) -> None:
    await _new_session(node)
    async with _opened(node, "session_id=s-1") as socket:
        await socket.send(json.dumps({"type": "chat", "message": "/count 1000 5"}))
        answer = (await _until(socket, "ack"))[-1]["data"]["assistant_message"]
        await _until(socket, "chunk")
        await socket.send(json.dumps({"type": "cancel", "message_id": answer["message_id"]}))
        frames = await _until(socket, "message")
        assert frames[-1]["data"]["status"] == "cancelled"
        if not any(frame["type"] == "ack" for frame in frames):
            frames = await _until(socket, "ack")
        acked = next(frame for frame in frames if frame["type"] == "ack")
        assert acked["data"]["message_id"] == answer["message_id"]


async def test_a_refused_question_keeps_the_connection(node: WebNode) -> None:
    """An error carries the question's key; a ping is answered after it."""
    await _new_session(node)
    async with _opened(node, "session_id=s-1") as socket:
        await _until(socket, "history")
        await socket.send(json.dumps({"type": "chat", "message": " ", "client_message_id": "k"}))
        error = await _frame(socket)
        assert (error["type"], error["data"]["code"]) == ("error", "validation_failed")
        assert error["data"]["client_message_id"] == "k"
        assert error["data"]["retryable"] is False
        await socket.send('{"type": "ping"}')
        assert (await _frame(socket))["type"] == "pong"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("not json", 4400),
        ("[]", 4400),
        ('{"type": "dance"}', 4400),
        ('{"type": "chat"}', 4400),
        ('{"type": "ping", "more": 1}', 4400),
        (b"\x00\x01", 4400),
        ('{"type": "chat", "message": "%s"}' % ("x" * 70_000), 4413),
        ('{"type": "auth", "token": "nonsense"}', 4401),
    ],
)
async def test_a_frame_that_is_not_of_the_contract_ends_the_connection(
    node: WebNode, sent: str | bytes, code: int
) -> None:
    await _new_session(node)
    async with _opened(node, "session_id=s-1") as socket:
        await _until(socket, "history")
        await socket.send(sent)
        assert await _close_code(socket) == code
    assert node.complaints() == []
    assert node.rows()["messages"] == 0


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("", {}, 4400),
        ("session_id=a_b", {}, 4400),
        ("session_id=s-1&last_event_id=5", {}, 4400),
        ("session_id=s-1&content=both", {}, 4400),
        ("session_id=nobody", {}, 4404),
        ("session_id=s-1", {"Authorization": "Bearer nonsense"}, 4401),
        ("session_id=s-1", {"Origin": "https://elsewhere.example"}, 4403),
    ],
)
async def test_a_connection_that_may_not_be_says_why(
    node: WebNode, query: str, headers: dict[str, str], code: int
) -> None:
    await _new_session(node)
    async with _opened(node, query, headers) as socket:
        error = await _frame(socket)
        assert error["type"] == "error"
        assert await _close_code(socket) == code


async def test_somebody_elses_session_is_not_there(node: WebNode) -> None:
    await _new_session(node, "hers", "ada")
    async with _opened(node, "session_id=hers") as socket:
        assert await _close_code(socket) == 4404


async def test_whoever_has_no_credential_may_say_first_who_they_are(node: WebNode) -> None:
    """Until then it is the development user, whose sessions these are not."""
    await _new_session(node, "dev-s")
    async with _opened(node, "session_id=dev-s") as socket:
        await _until(socket, "history")
        await socket.send(json.dumps({"type": "auth", "token": token("ada")}))
        assert (await _until(socket, "ack"))[-1]["data"]["user_id"] == "ada"
        assert await _close_code(socket) == 4404


async def test_in_production_a_silent_client_is_closed_and_a_token_opens(tmp_path: Path) -> None:
    async with serving(
        tmp_path, worker=False, environment="production", public_origin="https://chat.example"
    ) as node:
        await _new_session(node, "hers", "ada")
        async with _opened(node, "session_id=hers") as socket:
            assert await _close_code(socket) == 4401
        async with _opened(node, "session_id=hers") as socket:
            await socket.send('{"type": "ping"}')
            assert await _close_code(socket) == 4401
        async with _opened(node, "session_id=hers") as socket:
            await socket.send(json.dumps({"type": "auth", "token": token("ada")}))
            await _until(socket, "history")


async def test_a_token_that_ends_closes_and_a_renewed_one_goes_on(node: WebNode) -> None:
    await _new_session(node, "hers", "ada")
    short = token("ada", exp=int(time.time()) + 2)
    headers = {"Authorization": f"Bearer {short}"}
    async with (
        _opened(node, "session_id=hers", headers) as ends,
        _opened(node, "session_id=hers", headers) as renewed,
    ):
        await renewed.send(json.dumps({"type": "auth", "token": token("ada")}))
        await _until(renewed, "ack")
        frames = await _until(ends, "bye")
        assert frames[-1]["data"]["reason"] == "token_expired"
        assert await _close_code(ends) == 4401
        await renewed.send('{"type": "ping"}')
        assert (await _until(renewed, "pong"))[-1]["type"] == "pong"


async def test_a_deleted_session_ends_with_bye(node: WebNode) -> None:
    await _new_session(node)
    async with _opened(node, "session_id=s-1") as socket:
        await _until(socket, "history")
        async with node.client() as http:
            assert (await http.delete("/api/sessions/s-1")).status_code == 204
        assert (await _until(socket, "bye"))[-1]["data"]["reason"] == "session_deleted"
        assert await _close_code(socket) == 4404
    async with _opened(node, "session_id=s-1") as socket:
        assert await _close_code(socket) == 4404


async def test_a_client_that_never_reads_is_dropped_in_bounded_time(tmp_path: Path) -> None:
    """Once the socket's buffers are full it has so long; then its place is free again."""
    async with serving(tmp_path, stream_send_timeout_seconds=0.5, connections_per_user=1) as node:
        await _new_session(node)
        async with _opened(node, "session_id=s-1") as socket:
            await _until(socket, "history")
            socket.transport.pause_reading()
            async with node.client() as http:
                body = {"session_id": "s-1", "message": "/count 60000 0"}
                assert (await http.post("/api/chat", json=body)).status_code == 202
            await eventually(
                lambda: [line for line in node.logged if line.get("close_code") == 4290],
                "the stalled client was dropped",
                seconds=30,
            )
        async with _opened(node, "session_id=s-1") as socket:
            assert (await _frame(socket))["type"] == "welcome"
        assert node.complaints() == []


async def test_full_content_needs_no_state(node: WebNode) -> None:
    """Each chunk comes as a message with the whole text so far, from any position."""
    await _new_session(node)
    async with node.client() as http:
        asked = (
            await http.post("/api/chat", json={"session_id": "s-1", "message": "/count 30 5"})
        ).json()
        answer_id = asked["assistant_message"]["message_id"]
    text = ""
    async with _opened(
        node, f"session_id=s-1&content=full&last_event_id={asked['position']}"
    ) as socket:
        ids = []
        while True:
            frame = await _frame(socket)
            if "id" in frame:
                ids.append(frame["id"])
            if frame["type"] != "message":
                continue
            assert frame["data"]["message_id"] == answer_id
            if frame["data"]["is_complete"]:
                assert "chunk" not in frame["data"]
                break
            text += frame["data"]["chunk"]
            assert frame["data"]["content"] == text
            assert frame["data"]["status"] == "streaming"
    assert frame["data"]["content"] == text == " ".join(str(n) for n in range(1, 31))
    # Resumed in the middle, without any state: the same messages.
    middle = ids[len(ids) // 2]
    async with _opened(node, f"session_id=s-1&content=full&last_event_id={middle}") as socket:
        await _until(socket, "welcome")
        frame = await _frame(socket)
        assert frame["type"] == "message"
        assert text.startswith(frame["data"]["content"])
        assert frame["data"]["content"].endswith(frame["data"]["chunk"])
        assert len(frame["data"]["content"]) > len(frame["data"]["chunk"])


async def test_our_page_is_sent_html_and_goes_on_from_where_it_was_cut(node: WebNode) -> None:
    """Fragments with a position, from the middle of a block too, and the whole article at last."""
    await _new_session(node)
    async with node.client() as http:
        body = {"session_id": "s-1", "message": "/count 60 5"}
        asked = (await http.post("/api/chat", json=body)).json()
    answer_id = asked["assistant_message"]["message_id"]
    query = "session_id=s-1&content=html&last_event_id="
    block = re.compile(rf'<div id="m-{answer_id}-b0"><p>([^<]*)</p></div>')
    states: list[str] = []
    position, final, connections = asked["position"], False, 0
    while not final:
        connections += 1
        async with _opened(node, f"{query}{position}") as socket:
            assert (await _frame(socket))["type"] == "welcome"
            for _ in range(8):
                frame = await _frame(socket)
                assert frame["type"] == "fragment"
                position = frame["id"]
                states += block.findall(frame["data"])
                final = f'id="m-{answer_id}" class="message assistant"' in frame["data"]
                if final:
                    break
    assert connections > 2
    assert all(after.startswith(before) for before, after in itertools.pairwise(states)), states
    assert states[-1] == " ".join(str(number) for number in range(1, 61))


async def test_our_page_hears_heartbeats_and_sees_a_deletion(tmp_path: Path) -> None:
    """A script is not told of pings, and has to notice a connection that has gone silent."""
    async with serving(tmp_path, worker=False, stream_heartbeat_seconds=0.1) as node:
        await _new_session(node)
        async with _opened(node, "session_id=s-1&content=html") as socket:
            await _until(socket, "heartbeat")
            async with node.client() as http:
                await http.delete("/api/sessions/s-1")
            frames = await _until(socket, "bye")
            gone = [frame for frame in frames if frame["type"] == "fragment"][-1]
            assert "was deleted" in gone["data"]
            assert await _close_code(socket) == 4404
        async with _opened(node, "session_id=s-1&content=html") as socket:
            frames = await _until(socket, "bye")
            assert [frame["data"] for frame in frames[:-1]] == [gone["data"]]


async def test_a_page_whose_text_so_far_cannot_be_read_is_told_to_come_back(
    node: WebNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> list[Message]:
        raise Unavailable

    monkeypatch.setattr(ws, "state_reader", lambda *_: away)
    await _new_session(node)
    async with node.client() as http:
        body = {"session_id": "s-1", "message": "/count 60 5"}
        await http.post("/api/chat", json=body)
    async with _opened(node, "session_id=s-1") as socket:
        position = (await _until(socket, "chunk"))[-1]["id"]
    async with _opened(node, f"session_id=s-1&content=html&last_event_id={position}") as socket:
        frames = await _until(socket, "error")
        assert frames[-1]["data"]["retryable"] is True
        assert await _close_code(socket) == 1013
    assert node.complaints() == []


async def test_frames_cut_and_mixed_at_random_end_a_connection_in_good_order(
    node: WebNode,
) -> None:
    """Each of a hundred and fifty connections is told what was wrong, or had its answer."""
    await _new_session(node)
    chance = random.Random(20)
    valid = [
        b'{"type": "chat", "message": "/echo x", "model": "nobody"}',
        b'{"type": "cancel", "message_id": "01"}',
        b'{"type": "auth", "token": "a.b.c"}',
        b'{"type": "ping"}',
    ]
    ends: Counter[int | str] = Counter()
    for _ in range(150):
        one, other = chance.sample(valid, 2)
        frame = bytearray(one[: chance.randint(1, len(one))] + other[chance.randint(0, 20) :])
        for _ in range(chance.randint(0, 3)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        async with _opened(node, "session_id=s-1") as socket:
            await _until(socket, "history")
            # As text, whatever the bytes are: what is no UTF-8 is the library's to refuse.
            try:
                await socket.send(bytes(frame), text=True)
                # Answered only where the first did not end the connection.
                await socket.send('{"type": "ping"}')
                while (await _frame(socket))["type"] != "pong":
                    pass
                ends["pong"] += 1
            except ConnectionClosed:
                ends[socket.close_code or 0] += 1
    assert set(ends) <= {"pong", 4400, 4401, 1007}, ends
    assert ends[4400] > 30, ends
    assert node.complaints() == []
    assert node.rows()["messages"] == 0
