"""The response that carries a stream, without a server: how it ends, whoever ends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any

import pytest
from httpx_sse import ServerSentEvent
from httpx_sse._decoders import SSEDecoder

from app.domain.errors import Unavailable
from app.domain.frames import (
    Bye,
    ByeReason,
    Frame,
    Heartbeat,
)
from app.web import sse
from app.web.exchange import begin_exchange
from app.web.problems import ClientGone
from app.web.stream import EventStream, unless_gone
from tests.support.waiting import eventually


def _events(written: bytes) -> list[ServerSentEvent]:
    """Read events as httpx-sse does; it makes one of a lone ``retry:`` as well, which we drop."""
    decoder = SSEDecoder()
    events = (decoder.decode(line) for line in written.decode().split("\n")[:-1])
    return [event for event in events if event is not None and event.retry is None]


class _Follower:
    """Gives the frames it is told to, then waits; knows whether it was closed."""

    def __init__(self, frames: list[Frame | Exception], *, ends: bool = True) -> None:
        self.closed = 0
        self._frames = frames
        self._ends = ends

    async def frames(self) -> AsyncIterator[Frame]:
        for frame in self._frames:
            if isinstance(frame, Exception):
                raise frame
            yield frame
        if not self._ends:
            await asyncio.Event().wait()

    async def close(self) -> None:
        # A cancelled request must still get this far: a real one has to await here.
        await asyncio.sleep(0)
        self.closed += 1


class _Client:
    """The server's side of one connection."""

    def __init__(self, *, reads: bool = True) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self.left = asyncio.Event()
        self._reads = reads

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if not self._reads and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def _stream(follower: _Follower, *, timeout: float = 5) -> EventStream:
    return EventStream(
        follower,
        prologue=sse.retry(1),
        encode=sse.frame_event,
        encode_error=sse.error_event,
        send_timeout_seconds=timeout,
    )


def _scope(method: str = "GET") -> Any:
    scope: Any = {"type": "http", "method": method, "headers": []}
    begin_exchange(scope)
    return scope


class TestEventStream:
    async def test_it_ends_with_the_frames_and_closes_the_follower(self) -> None:
        follower = _Follower([Bye(ByeReason.DRAIN, reconnect=True, after_ms=0)])
        client = _Client()
        await _stream(follower)(_scope(), client.receive, client.send)
        assert [event.event for event in _events(client.body)] == ["bye"]
        assert client.sent[-1]["more_body"] is False
        assert follower.closed == 1

    async def test_a_client_that_leaves_is_noticed_while_nothing_is_sent(self) -> None:
        follower, client = _Follower([], ends=False), _Client()
        streaming = asyncio.create_task(_stream(follower)(_scope(), client.receive, client.send))
        await asyncio.sleep(0)
        client.left.set()
        await asyncio.wait_for(streaming, 5)
        assert follower.closed == 1

    async def test_a_client_that_never_reads_is_dropped(self) -> None:
        follower, client = _Follower([Heartbeat()], ends=False), _Client(reads=False)
        await asyncio.wait_for(
            _stream(follower, timeout=0.05)(_scope(), client.receive, client.send), 5
        )
        assert follower.closed == 1
        assert client.sent[-1]["more_body"] is True

    async def test_an_error_after_the_start_is_told_in_the_stream(self) -> None:
        follower, client = _Follower([Heartbeat(), Unavailable()]), _Client()
        await _stream(follower)(_scope(), client.receive, client.send)
        (event,) = _events(client.body)
        assert event.event == "error"
        assert json.loads(event.data)["code"] == "unavailable"
        assert client.sent[-1]["more_body"] is False
        assert follower.closed == 1

    async def test_being_cancelled_closes_the_follower_as_well(self) -> None:
        follower, client = _Follower([], ends=False), _Client()
        streaming = asyncio.create_task(_stream(follower)(_scope(), client.receive, client.send))
        await eventually(lambda: client.sent, "the stream has begun")
        streaming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await streaming
        assert follower.closed == 1

    async def test_head_sends_headers_alone(self) -> None:
        follower, client = _Follower([], ends=False), _Client()
        await _stream(follower)(_scope("HEAD"), client.receive, client.send)
        assert client.body == b""
        assert client.sent[0]["status"] == 200
        assert follower.closed == 1


class TestUnlessGone:
    async def test_it_gives_what_the_work_gives(self) -> None:
        assert await unless_gone(_Client().receive, asyncio.sleep(0, "done")) == "done"

    async def test_work_has_ended_before_the_caller_hears_of_a_client_that_left(self) -> None:
        client, ended = _Client(), []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(True)

        client.left.set()
        with pytest.raises(ClientGone):
            await unless_gone(client.receive, work())
        assert ended == [True]

    async def test_a_cancellation_that_was_swallowed_is_made_again(self) -> None:
        """Python 3.11's wait_for drops one that meets a result, under every Redis command."""
        client, swallowed = _Client(), []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(True)
            await asyncio.Event().wait()

        client.left.set()
        with pytest.raises(ClientGone):
            await asyncio.wait_for(unless_gone(client.receive, work()), 5)
        assert swallowed == [True]

    async def test_an_error_of_the_work_is_its_error(self) -> None:
        def fail() -> Callable[[], None]:
            raise Unavailable

        async def work() -> None:
            fail()

        with pytest.raises(Unavailable):
            await unless_gone(_Client().receive, work())
