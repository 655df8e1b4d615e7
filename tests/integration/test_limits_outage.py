"""A limiter whose Redis is away, frozen or unwilling says so within bounded time, and recovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
from redis.asyncio import Redis

from app.domain.errors import Unavailable
from app.domain.rates import Charge, Rate, Verdict
from app.streams.connection import connect
from app.streams.limits import RedisLimiter
from tests.support.network import Network, network_to
from tests.support.waiting import eventually

_CHARGE = Charge("requests", Rate(100, 86_400))
_FOREVER_SECONDS = 3600.0
"""What a part of the connection may wait by itself; a test that needs that much has failed."""


class _Limited:
    """A limiter behind a network, under a clock for its pauses."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self.now = 100.0
        self._redis = connect(url, timeout_seconds=_FOREVER_SECONDS, max_connections=1)
        self.limiter = RedisLimiter(
            self._redis, timeout_seconds=timeout_seconds, clock=lambda: self.now
        )

    async def take(self) -> Verdict:
        return await self.limiter.take("user:alice", (_CHARGE,))

    async def failures(self, times: int) -> int:
        found = await asyncio.gather(*(self.take() for _ in range(times)), return_exceptions=True)
        assert all(isinstance(one, (Verdict, Unavailable)) for one in found), found
        return sum(isinstance(one, Unavailable) for one in found)

    async def close(self) -> None:
        await self.limiter.close()
        await self._redis.aclose(close_connection_pool=True)


class _Behind(_Limited):
    """One whose Redis is behind a network."""

    def __init__(self, network: Network, *, timeout_seconds: float) -> None:
        self.network = network
        super().__init__(f"redis://127.0.0.1:{network.port}/0", timeout_seconds=timeout_seconds)


@asynccontextmanager
async def limited(redis_url: str, *, timeout_seconds: float) -> AsyncIterator[_Behind]:
    async with network_to(Path(unquote(redis_url.removeprefix("unix://")))) as network:
        limited = _Behind(network, timeout_seconds=timeout_seconds)
        try:
            yield limited
        finally:
            await limited.close()


async def test_all_who_wait_for_a_frozen_redis_wait_for_it_together(redis_url: str) -> None:
    """Then it is left alone for a second: whoever comes in that time is told at once."""
    async with limited(redis_url, timeout_seconds=_FOREVER_SECONDS) as it:
        assert (await it.take()).remaining == 99
        it.limiter._timeout_seconds = 0.25
        (connection,) = it.network.connections
        connection.stall()
        first = asyncio.create_task(it.failures(1))
        await eventually(
            lambda: it.limiter._sending is not None and not it.limiter._waiting, "one is under way"
        )
        # Those that come meanwhile do not begin a wait of their own.
        assert await it.failures(50) == 50
        assert await first == 1
        connection.cut()
        await eventually(lambda: not it.network.connections, "the connection is gone")
        assert await it.failures(50) == 50
        assert it.network.connections == []
        it.now += 0.9
        assert await it.failures(1) == 1
        assert it.network.connections == []
        it.now += 0.2
        it.limiter._timeout_seconds = _FOREVER_SECONDS
        assert (await it.take()).allowed


async def test_a_redis_that_nobody_reaches_fails_at_once_and_for_all(tmp_path: Path) -> None:
    it = _Limited(f"unix://{tmp_path}/nobody.sock", timeout_seconds=_FOREVER_SECONDS)
    assert await it.failures(20) == 20
    it.now += 1.1
    assert await it.failures(20) == 20
    await it.close()


async def test_a_redis_that_refuses_to_write_counts_nothing_and_is_no_refusal(
    redis: Redis, redis_url: str
) -> None:
    async with limited(redis_url, timeout_seconds=_FOREVER_SECONDS) as it:
        await redis.config_set("maxmemory", 1)
        try:
            assert await it.failures(3) == 3
        finally:
            await redis.config_set("maxmemory", 0)
        it.now += 1.1
        assert (await it.take()).remaining == 99


async def test_whoever_leaves_meanwhile_costs_the_others_nothing(redis_url: str) -> None:
    async with limited(redis_url, timeout_seconds=_FOREVER_SECONDS) as it:
        waiting = [asyncio.create_task(it.take()) for _ in range(10)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(one, Verdict) for one in found] == [False, True] * 5


async def test_a_node_that_stops_waits_for_no_count(redis_url: str) -> None:
    async with limited(redis_url, timeout_seconds=_FOREVER_SECONDS) as it:
        await it.take()
        it.network.connections[0].stall()
        waiting = asyncio.create_task(it.take())
        await asyncio.sleep(0)
        await it.limiter.close()
        with pytest.raises(Unavailable):
            await waiting
