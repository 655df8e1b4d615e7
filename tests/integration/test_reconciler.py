"""Answers that nothing covers are found, whatever the clocks of those who accepted them said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from app.db.engine import Database
from app.ending import end
from app.streams import keys
from app.streams.election import Election
from app.streams.jobs import JobQueue
from app.telemetry import create_metrics
from tests.support.conversations import Talker
from tests.support.databases import NewDatabase
from workers.generation.reconciler import Reconciler

_PERIOD_SECONDS = 2.0


class _Looking:
    """A reconciler, the time as it sees it, and the queue."""

    def __init__(self, database: Database, redis: Redis) -> None:
        self.seconds = 0.0
        self.jobs = JobQueue(redis, consumer="worker-1")
        self.reconciler = Reconciler(
            database=database,
            jobs=self.jobs,
            election=Election(redis, key=keys.RECONCILER, node_id="worker-1", ttl_ms=6000),
            period_seconds=_PERIOD_SECONDS,
            metrics=create_metrics(),
            monotonic=lambda: self.seconds,
        )

    async def look(self) -> int:
        found = await self.reconciler.reconcile()
        self.seconds += _PERIOD_SECONDS
        return found


@pytest.fixture
async def talker(new_database: NewDatabase) -> AsyncIterator[Talker]:
    database = Database(new_database("sqlite"))
    yield await Talker(database).arrive()
    await database.close()


@pytest.fixture
def looking(talker: Talker, redis: Redis) -> _Looking:
    return _Looking(talker.database, redis)


@pytest.mark.parametrize("hours", [-1, 0, 1])
async def test_a_question_without_a_job_is_queued_whatever_its_node_took_the_time_for(
    talker: Talker, looking: _Looking, hours: int
) -> None:
    """A node an hour ahead accepts, and dies before the queue knows: nobody waits for an hour."""
    accepted = await talker.ask(now=datetime.now(UTC) + timedelta(hours=hours))
    assert await looking.look() == 0, "it may be on its way into the queue just now"
    assert await looking.look() == 1
    assert await looking.jobs.covered() == {accepted.assistant_message.message_id}
    assert await looking.look() == 0


async def test_a_question_that_is_queued_between_two_looks_is_not_queued_again(
    talker: Talker, looking: _Looking
) -> None:
    accepted = await talker.ask()
    assert await looking.look() == 0
    await looking.jobs.enqueue("s-1", accepted.assistant_message.message_id, "ada")
    assert [await looking.look() for _ in range(3)] == [0, 0, 0]
    assert await looking.jobs.depth() == 1


async def test_a_job_that_is_lost_again_is_missed_anew(
    talker: Talker, looking: _Looking, redis: Redis
) -> None:
    """Between two losses it was covered: that it was not, before, does not count."""
    accepted = await talker.ask()
    await looking.look()
    await looking.jobs.enqueue("s-1", accepted.assistant_message.message_id, "ada")
    await looking.look()
    await redis.flushall()
    assert [await looking.look() for _ in range(2)] == [0, 1]


async def test_it_looks_again_and_again_by_itself(talker: Talker, redis: Redis) -> None:
    """Under the seat of which there is one, until it is cancelled."""
    looking = _Looking(talker.database, redis)
    looking.reconciler._period_seconds = 0.0
    accepted = await talker.ask()
    running = asyncio.ensure_future(looking.reconciler.run())
    async with asyncio.timeout(10):
        while await looking.jobs.covered() != {accepted.assistant_message.message_id}:
            looking.seconds += 1
    await end(running)
