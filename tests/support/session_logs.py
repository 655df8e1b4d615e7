"""The two implementations of the session log, each with what a test wants to do to it."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import pytest
import uuid_utils
from redis.asyncio import Redis

from app.streams import keys
from app.streams.connection import connect
from app.streams.memory_log import MemorySessionLog
from app.streams.redis_log import RedisSessionLog
from app.streams.session_log import SessionLog

Kind: TypeAlias = Literal["memory", "valkey"]

MAX_ENTRIES = 1000
_MARKER = "chat:marker"
_PATIENCE_SECONDS = 5


class Stop(NamedTuple):
    """What an owner is told."""

    node_id: str
    session_id: str
    message_id: str
    attempt: int


class LogUnderTest(Protocol):
    """A session log, what it published, and the accidents that may happen to it."""

    @property
    def log(self) -> SessionLog:
        """The log."""
        ...

    async def published(self, session_id: str) -> list[bytes]:
        """Give the payloads published since this was called last, in order."""
        ...

    async def stops(self) -> list[Stop]:
        """Give the stops that owners were told of since this was called last."""
        ...

    async def end_lease(self, session_id: str) -> None:
        """Let the lease's time be over, whoever holds it."""
        ...

    async def lose(self) -> None:
        """Lose everything."""
        ...

    async def lose_log(self, session_id: str) -> None:
        """Lose a session's entries and nothing else of it."""
        ...

    async def restart(self, session_id: str) -> None:
        """Let the session's answer have been begun in an earlier run of the server."""
        ...


class MemoryUnderTest:
    """The implementation in memory, under clocks that stand still until a test moves them."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES) -> None:
        self.now = 0.0
        self._published: defaultdict[str, list[bytes]] = defaultdict(list)
        self._stops: list[Stop] = []
        self.log = MemorySessionLog(
            max_entries=max_entries,
            clock=lambda: self.now,
            epoch_clock=itertools.count(1_000).__next__,
            on_publish=lambda session_id, payload: self._published[session_id].append(payload),
            on_stop=lambda *told: self._stops.append(Stop(*told)),
        )

    async def published(self, session_id: str) -> list[bytes]:
        return self._published.pop(session_id, [])

    async def stops(self) -> list[Stop]:
        told, self._stops = self._stops, []
        return told

    async def end_lease(self, session_id: str) -> None:
        self.now += 3600

    async def lose(self) -> None:
        self.log.lose_everything()

    async def lose_log(self, session_id: str) -> None:
        self.log.lose_log(session_id)

    async def restart(self, session_id: str) -> None:
        self.log.restart()


class ValkeyUnderTest:
    """The implementation in Redis, on a real server that is the test's alone."""

    def __init__(self, redis: Redis, pubsub: Any, *, max_entries: int) -> None:
        self.log = RedisSessionLog(redis, ttl_seconds=60, max_entries=max_entries)
        self._redis = redis
        self._pubsub = pubsub
        self._published: defaultdict[str, list[bytes]] = defaultdict(list)
        self._stops: list[Stop] = []

    async def published(self, session_id: str) -> list[bytes]:
        await self._receive()
        return self._published.pop(session_id, [])

    async def stops(self) -> list[Stop]:
        await self._receive()
        told, self._stops = self._stops, []
        return told

    async def end_lease(self, session_id: str) -> None:
        await self._redis.pexpire(keys.owner(session_id), 0)

    async def lose(self) -> None:
        await self._redis.flushall()
        await self._tick()

    async def lose_log(self, session_id: str) -> None:
        await self._redis.delete(keys.log(session_id))
        await self._tick()

    async def restart(self, session_id: str) -> None:
        if await self._redis.exists(keys.active(session_id)):
            await self._redis.hset(keys.active(session_id), "run", "0" * 40)

    async def set_node_entries(self, count: int) -> None:
        """Let trimming be exact to so many entries (``stream-node-max-entries``, 100 otherwise)."""
        await self._redis.config_set("stream-node-max-entries", count)

    async def _receive(self) -> None:
        """Take what was published; all of it is there when the marker is."""
        marker = str(uuid_utils.uuid7()).encode()
        await self._redis.publish(_MARKER, marker)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                told = await self._pubsub.get_message(timeout=_PATIENCE_SECONDS)
                if told is None or told["type"] != "pmessage":
                    continue
                channel = told["channel"].decode()
                if told["data"] == marker:
                    return
                if channel.startswith(keys.worker_channel("")):
                    session_id, message_id, attempt = told["data"].decode().split(" ")
                    node_id = channel.removeprefix(keys.worker_channel(""))
                    self._stops.append(Stop(node_id, session_id, message_id, int(attempt)))
                elif channel != _MARKER:
                    self._published[keys.session_of_channel(channel)].append(told["data"])

    async def _tick(self) -> None:
        """Wait for the server's next millisecond: an epoch is as exact as its clock."""
        lost_at = _milliseconds(await self._redis.time())
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while _milliseconds(await self._redis.time()) <= lost_at:
                pass


@asynccontextmanager
async def valkey_under_test(
    url: str, *, max_entries: int = MAX_ENTRIES
) -> AsyncIterator[ValkeyUnderTest]:
    """Give the implementation in Redis on an empty server."""
    redis = connect(url, timeout_seconds=5, max_connections=10)
    pubsub = redis.pubsub()
    await pubsub.psubscribe("chat:*")
    under_test = ValkeyUnderTest(redis, pubsub, max_entries=max_entries)
    try:
        yield under_test
    finally:
        under_test.log.close()
        await pubsub.aclose()  # type: ignore[no-untyped-call]
        await redis.aclose(close_connection_pool=True)


@asynccontextmanager
async def memory_under_test(*, max_entries: int = MAX_ENTRIES) -> AsyncIterator[MemoryUnderTest]:
    """Give the implementation in memory."""
    yield MemoryUnderTest(max_entries=max_entries)


class NewLog(Protocol):
    """Makes a log under test, bounded as asked."""

    def __call__(
        self, *, max_entries: int = MAX_ENTRIES
    ) -> AbstractAsyncContextManager[LogUnderTest]: ...


@pytest.fixture(params=["memory", "valkey"])
def new_log(request: pytest.FixtureRequest) -> NewLog:
    """Make logs of one implementation; the test runs once on each."""
    if request.param == "memory":
        return memory_under_test
    url: str = request.getfixturevalue("redis_url")

    def new(*, max_entries: int = MAX_ENTRIES) -> AbstractAsyncContextManager[LogUnderTest]:
        return valkey_under_test(url, max_entries=max_entries)

    return new


@pytest.fixture
async def under_test(new_log: NewLog) -> AsyncIterator[LogUnderTest]:
    """Give an empty log; the test runs once on each implementation."""
    async with new_log() as made:
        yield made


def _milliseconds(time: tuple[int, int]) -> int:
    seconds, microseconds = time
    return seconds * 1000 + microseconds // 1000
