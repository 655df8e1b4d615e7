"""What workers say of their models' servers reaches the web nodes, and does not stay for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from app.streams import keys
from app.streams.model_reports import FRESH_SECONDS, ModelReports

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Clock:
    now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.mark.parametrize("age", [0, FRESH_SECONDS - 1])
async def test_each_workers_last_word_counts(redis: Redis, age: int) -> None:
    clock = Clock()
    reports = ModelReports(redis, clock=clock)
    await reports.tell("worker-1", {"a": False})
    await reports.tell("worker-1", {"a": True, "b": True})
    await reports.tell("worker-2", {"a": False})
    clock.now += timedelta(seconds=age)
    assert sorted(await reports.read(), key=len) == [{"a": False}, {"a": True, "b": True}]


async def test_a_worker_that_fell_silent_is_forgotten(redis: Redis) -> None:
    clock = Clock()
    reports = ModelReports(redis, clock=clock)
    await reports.tell("worker-1", {"a": False})
    clock.now += timedelta(seconds=FRESH_SECONDS)
    assert await reports.read() == []
    await reports.tell("worker-2", {"a": True})
    client: Any = redis  # what is untyped in redis-py
    assert await client.hkeys(keys.MODELS) == [b"worker-2"]
    assert 0 < await redis.ttl(keys.MODELS) <= FRESH_SECONDS


async def test_the_word_of_another_version_is_passed_over(redis: Redis) -> None:
    reports = ModelReports(redis, clock=Clock())
    await reports.tell("worker-1", {"a": True})
    client: Any = redis
    await client.hset(keys.MODELS, "worker-2", b'{"new": 1}')
    await client.hset(keys.MODELS, "worker-3", b"{")
    assert await reports.read() == [{"a": True}]
