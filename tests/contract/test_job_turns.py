"""Whose job is next, and that no death between two steps of a worker loses or doubles one."""

from __future__ import annotations

import os
from typing import Any

import pytest
from redis.asyncio import Redis

from app.domain.errors import Unavailable
from app.streams import jobs as jobs_module
from app.streams import keys, scripts
from app.streams.jobs import Job, JobQueue

_LONG_MS = 600_000


@pytest.fixture
def queue(redis: Redis) -> JobQueue:
    return JobQueue(redis, consumer="worker-1")


@pytest.fixture
def other(redis: Redis) -> JobQueue:
    return JobQueue(redis, consumer="worker-2")


@pytest.fixture(autouse=True)
def time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no two questions be asked in the same millisecond, on whatever machine."""
    now_ms = iter(range(1_790_000_000_000, 1_790_000_100_000))
    monkeypatch.setattr(jobs_module, "_now_ms", lambda: next(now_ms))


async def _ask(queue: JobQueue, user_id: str, count: int = 1, first: int = 1) -> None:
    for number in range(first, first + count):
        await queue.enqueue(f"s-{user_id}", f"{user_id}{number}", user_id)


async def _serve(queue: JobQueue, count: int) -> list[str]:
    """Answer this many, one after the other, as a worker with one place does; say which."""
    served = []
    for _ in range(count):
        for job in await queue.take(1, block_ms=1):
            served.append(job.message_id)
            await queue.done(job)
    return served


async def _read_and_die(redis: Redis, *, count: int = 1) -> None:
    """Be a worker that reads entries and is killed before it is told which jobs they are."""
    replies: Any = await redis.xreadgroup(
        keys.JOBS_GROUP, "dead", {keys.JOBS: ">"}, count=count, block=1
    )
    ((_, entries),) = replies
    await _age(redis, [job_id for job_id, _ in entries], "dead")


async def _age(redis: Redis, job_ids: list[Any], consumer: str) -> None:
    await redis.xclaim(keys.JOBS, keys.JOBS_GROUP, consumer, 0, job_ids, idle=_LONG_MS)


async def _left(redis: Redis) -> set[str]:
    """Name the queue's keys that hold something."""
    return {os.fsdecode(key) for key in await redis.keys()}


async def _is_empty(redis: Redis) -> bool:
    """Say whether nothing of any job is kept; the stream stays, for its group."""
    return await _left(redis) <= {keys.JOBS} and not await redis.xlen(keys.JOBS)


async def test_one_users_hundred_do_not_stand_before_anothers_one(
    queue: JobQueue, redis: Redis
) -> None:
    """With one place, which is taken: the one question waits for that answer and one more."""
    await _ask(queue, "ada", 100)
    [running] = await queue.take(1, block_ms=1)
    await _ask(queue, "eve")
    await queue.done(running)
    assert await _serve(queue, 3) == ["ada2", "eve1", "ada3"]
    assert await _serve(queue, 97) == [f"ada{number}" for number in range(4, 101)]
    assert await _is_empty(redis)


async def test_a_user_alone_is_served_in_the_order_of_asking(queue: JobQueue) -> None:
    await _ask(queue, "ada", 12)
    assert await _serve(queue, 5) == [f"ada{number}" for number in range(1, 6)]
    await _ask(queue, "ada", 3, first=13)
    assert await _serve(queue, 10) == [f"ada{number}" for number in range(6, 16)]


async def test_users_with_many_take_turns(queue: JobQueue) -> None:
    await _ask(queue, "ada", 4)
    await _ask(queue, "eve", 4)
    await _ask(queue, "bob", 2)
    assert await _serve(queue, 10) == [
        *("ada1", "eve1", "bob1", "ada2", "eve2", "bob2"),
        *("ada3", "eve3", "ada4", "eve4"),
    ]


async def test_places_that_are_taken_together_are_shared_out_as_well(queue: JobQueue) -> None:
    await _ask(queue, "ada", 10)
    await _ask(queue, "eve", 2)
    taken = await queue.take(4, block_ms=1)
    assert [job.message_id for job in taken] == ["ada1", "eve1", "ada2", "eve2"]


async def test_who_is_next_is_not_overtaken_by_whoever_comes(queue: JobQueue) -> None:
    """A crowd of users, each with a first question, keeps nobody waiting for ever."""
    await _ask(queue, "ada", 3)
    assert await _serve(queue, 1) == ["ada1"]
    for number in range(20):
        await _ask(queue, f"new{number}-")
    assert await _serve(queue, 2) == ["ada2", "new0-1"]


async def test_having_been_served_gives_no_one_precedence_later(
    queue: JobQueue, redis: Redis
) -> None:
    """Past use is forgotten: neither credit for silence, nor a debt for what was answered."""
    await _ask(queue, "ada", 50)
    assert len(await _serve(queue, 50)) == 50
    assert await _is_empty(redis)
    await _ask(queue, "ada", 2)
    await _ask(queue, "eve", 2)
    assert await _serve(queue, 4) == ["ada1", "eve1", "ada2", "eve2"]


async def test_only_users_whose_turn_is_to_come_are_known(queue: JobQueue, redis: Redis) -> None:
    await _ask(queue, "ada", 5)
    for number in range(5):
        await _ask(queue, f"user{number}-")
    assert await redis.zcard(keys.TURNS) == 6
    assert len(await _serve(queue, 7)) == 7
    assert await redis.zrange(keys.TURNS, 0, -1) == [b"ada"]


async def test_a_job_that_is_there_twice_is_served_twice_and_harms_nobody(
    queue: JobQueue, redis: Redis
) -> None:
    for _ in range(2):
        await queue.enqueue("s-1", "m-1", "ada")
    await _ask(queue, "eve")
    assert await _serve(queue, 5) == ["m-1", "eve1", "m-1"]
    assert await _is_empty(redis)


class TestDeath:
    async def test_a_worker_that_read_and_was_told_nothing_loses_nothing(
        self, queue: JobQueue, redis: Redis
    ) -> None:
        await queue.take(1, block_ms=1)
        await _ask(queue, "ada", 3)
        await _read_and_die(redis, count=2)
        assert await queue.covered() == {"ada1", "ada2", "ada3"}
        # Whose turn it is, is served first, not what the dead worker's entries were added for.
        [first] = await queue.take(1, block_ms=1)
        taken_over = await queue.take_over(_LONG_MS // 2, 10)
        assert first.message_id == "ada1"
        assert [job.message_id for job in taken_over] == ["ada2", "ada3"]
        for job in (first, *taken_over):
            await queue.done(job)
        assert await _is_empty(redis)

    async def test_one_that_was_told_leaves_the_very_job(
        self, queue: JobQueue, other: JobQueue, redis: Redis
    ) -> None:
        """Its entry was added for another job than the one that it is now."""
        await _ask(queue, "ada", 3)
        await _serve(queue, 1)
        await _ask(queue, "eve")
        _, eves = await queue.take(2, block_ms=1)
        assert eves.message_id == "eve1"
        await _age(redis, [eves.job_id], "worker-1")
        assert await other.take_over(_LONG_MS // 2, 10) == [eves]
        assert await queue.covered() == {"ada2", "ada3", "eve1"}

    async def test_a_reply_that_is_lost_is_given_again(
        self, queue: JobQueue, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server bound the entries, and the worker never heard of it."""
        await _ask(queue, "ada", 2)
        told: list[Any] = []
        run = scripts.run

        async def lost(*call: Any) -> Any:
            told.append(await run(*call))
            raise ConnectionError("lost on the way")

        with monkeypatch.context() as patch:
            patch.setattr(scripts, "run", lost)
            with pytest.raises(Unavailable):
                await queue.take(2, block_ms=1)
        await _age(redis, told[0][::2], "worker-1")
        again = await queue.take_over(_LONG_MS // 2, 10)
        assert [job.message_id for job in again] == ["ada1", "ada2"]

    async def test_redis_emptied_between_reading_and_binding_is_nothing_to_do(
        self, queue: JobQueue, redis: Redis
    ) -> None:
        await _ask(queue, "ada")
        [job] = await queue.take(1, block_ms=1)
        await redis.flushall()
        assert await queue._jobs_of([(job.job_id.encode(), {})]) == []
        assert await _left(redis) == set()


class TestHandOver:
    async def test_a_job_that_had_its_turn_goes_before_all_others(
        self, queue: JobQueue, other: JobQueue, redis: Redis
    ) -> None:
        await _ask(queue, "ada", 2)
        await _ask(queue, "eve", 2)
        taken = await queue.take(2, block_ms=1)
        for job in reversed(taken):
            await queue.hand_over(job)
        assert await _serve(other, 4) == ["ada1", "eve1", "ada2", "eve2"]
        assert await _is_empty(redis)

    async def test_it_gives_whoever_comes_then_no_precedence(
        self, queue: JobQueue, other: JobQueue
    ) -> None:
        await _ask(queue, "ada", 4)
        for job in await queue.take(2, block_ms=1):
            await queue.hand_over(job)
        await _ask(queue, "eve", 2)
        assert await _serve(other, 6) == ["ada1", "ada2", "ada3", "eve1", "ada4", "eve2"]


class TestUpgrade:
    """The version before puts entries into the stream that are jobs, and reads them as such."""

    @staticmethod
    async def _enqueue_as_before(redis: Redis, message_id: str) -> None:
        fields: dict[Any, Any] = {
            "session_id": "s-old",
            "message_id": message_id,
            "enqueued_ms": 1_790_000_000_000,
        }
        await redis.xadd(keys.JOBS, fields)

    @staticmethod
    async def _serve_as_before(redis: Redis) -> str:
        replies: Any = await redis.xreadgroup(
            keys.JOBS_GROUP, "old", {keys.JOBS: ">"}, count=1, block=1
        )
        ((_, [(job_id, fields)]),) = replies
        assert int(fields[b"enqueued_ms"])
        assert fields[b"session_id"]
        message_id: bytes = fields[b"message_id"]
        await redis.xack(keys.JOBS, keys.JOBS_GROUP, job_id)
        await redis.xdel(keys.JOBS, job_id)
        return message_id.decode()

    async def test_what_it_put_in_is_taken(self, queue: JobQueue, redis: Redis) -> None:
        await self._enqueue_as_before(redis, "old1")
        await _ask(queue, "ada")
        assert await queue.covered() == {"old1", "ada1"}
        [old, new] = await queue.take(2, block_ms=1)
        assert old == Job(old.job_id, "s-old", "old1", 1_790_000_000_000)
        assert new.message_id == "ada1"
        assert await queue.covered() == {"old1", "ada1"}
        for job in (old, new):
            await queue.done(job)
        assert await _is_empty(redis)

    async def test_its_workers_do_the_job_that_an_entry_names_and_none_is_forgotten(
        self, queue: JobQueue, redis: Redis
    ) -> None:
        await queue.take(1, block_ms=1)
        await _ask(queue, "ada", 3)
        # The very first is taken by one of each version: once too often, which is harmless.
        assert await self._serve_as_before(redis) == "ada1"
        assert await _serve(queue, 3) == ["ada1", "ada2"]
        # The last one's entry is used up; whoever looks for what is covered sees to it.
        assert await queue.covered() == {"ada3"}
        assert await queue.covered() == {"ada3"}
        assert await _serve(queue, 2) == ["ada3"]
        assert await _is_empty(redis)


class TestByHand:
    """People tidy streams."""

    async def test_a_taken_job_without_its_entry_covers_nothing(
        self, queue: JobQueue, redis: Redis
    ) -> None:
        await _ask(queue, "ada")
        [job] = await queue.take(1, block_ms=1)
        await redis.xdel(keys.JOBS, job.job_id)
        await queue.covered()
        assert await queue.covered() == set()
        assert await _is_empty(redis)

    async def test_an_entry_without_a_job_is_dropped(self, queue: JobQueue, redis: Redis) -> None:
        await _ask(queue, "ada")
        await redis.delete(keys.WAITING)
        assert await _serve(queue, 1) == []
        assert await queue.depth() == 0
        assert await redis.exists(keys.TURNS) == 0

    async def test_a_stream_that_was_deleted_is_filled_again(
        self, queue: JobQueue, redis: Redis
    ) -> None:
        await _ask(queue, "ada", 2)
        await redis.delete(keys.JOBS)
        assert await queue.covered() == {"ada1", "ada2"}
        assert await _serve(queue, 3) == ["ada1", "ada2"]
