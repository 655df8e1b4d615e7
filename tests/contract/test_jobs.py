"""The job queue: what is in it is done by somebody, and by one worker at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from app.domain.errors import Unavailable
from app.streams import keys
from app.streams.connection import connect
from app.streams.jobs import Job, JobQueue

_LONG_MS = 600_000

NewQueue = Callable[[str], JobQueue]


@pytest.fixture
def queue_of(redis: Redis) -> NewQueue:
    """See the one queue as a worker of a name does."""
    return lambda consumer: JobQueue(redis, consumer=consumer)


@pytest.fixture
def queue(queue_of: NewQueue) -> JobQueue:
    return queue_of("worker-1")


@pytest.fixture
def other(queue_of: NewQueue) -> JobQueue:
    return queue_of("worker-2")


async def _take(queue: JobQueue, count: int = 10) -> list[Job]:
    return await queue.take(count, block_ms=1)


async def _taken(queue: JobQueue, message_id: str = "m-1") -> Job:
    await queue.enqueue("s-1", message_id, "ada")
    [job] = await _take(queue)
    return job


async def _age(redis: Redis, job: Job, consumer: str, idle_ms: int = _LONG_MS) -> None:
    """Make a job one that its worker has not kept for that long."""
    await redis.xclaim(keys.JOBS, keys.JOBS_GROUP, consumer, 0, [job.job_id], idle=idle_ms)


async def _pending(redis: Redis) -> dict[str, str]:
    """Give the job ids that are taken, each with its worker."""
    found: Any = await redis.xpending_range(keys.JOBS, keys.JOBS_GROUP, "-", "+", 100)
    return {one["message_id"].decode(): one["consumer"].decode() for one in found}


async def test_jobs_are_taken_in_order_with_what_was_put_in(queue: JobQueue) -> None:
    begun_ms = int(time.time() * 1000)
    for number in range(3):
        await queue.enqueue(f"s-{number}", f"m-{number}", "ada")
    ended_ms = int(time.time() * 1000)
    jobs = await _take(queue)
    assert [(job.session_id, job.message_id) for job in jobs] == [
        ("s-0", "m-0"),
        ("s-1", "m-1"),
        ("s-2", "m-2"),
    ]
    assert all(begun_ms <= job.enqueued_ms <= ended_ms for job in jobs)


async def test_no_more_are_taken_than_asked_for(queue: JobQueue, other: JobQueue) -> None:
    for number in range(3):
        await queue.enqueue("s-1", f"m-{number}", "ada")
    assert [job.message_id for job in await _take(queue, 2)] == ["m-0", "m-1"]
    assert [job.message_id for job in await _take(other, 2)] == ["m-2"]


async def test_a_job_is_given_to_one_worker(queue: JobQueue, other: JobQueue) -> None:
    await _taken(queue)
    assert await _take(other) == []
    assert await _take(queue) == []


async def test_an_empty_queue_gives_nothing(queue: JobQueue) -> None:
    assert await _take(queue) == []
    assert await queue.take_over(0, 10) == []
    assert await queue.depth() == 0
    assert await queue.covered() == set()


async def test_a_worker_that_waits_is_given_what_comes(
    queue: JobQueue, redis: Redis, redis_url: str
) -> None:
    blocking = connect(redis_url, timeout_seconds=30, max_connections=1)
    waiting = JobQueue(blocking, consumer="worker-2")
    await _take(waiting)
    taking = asyncio.create_task(waiting.take(1, block_ms=20_000))
    try:
        async with asyncio.timeout(10):
            while not (await redis.info("clients"))["blocked_clients"]:
                pass
            await queue.enqueue("s-1", "m-1", "ada")
            [job] = await taking
    finally:
        taking.cancel()
        await blocking.aclose(close_connection_pool=True)
    assert job.message_id == "m-1"


async def test_jobs_that_waited_before_the_first_worker_are_taken(
    queue: JobQueue, redis: Redis
) -> None:
    await queue.enqueue("s-1", "m-1", "ada")
    assert not await redis.xinfo_groups(keys.JOBS)
    assert [job.message_id for job in await _take(queue)] == ["m-1"]


@pytest.mark.parametrize("first", ["take", "take_over"])
async def test_the_group_is_made_anew_where_redis_was_wiped(
    queue: JobQueue, redis: Redis, first: str
) -> None:
    await _taken(queue)
    await redis.flushall()
    await queue.enqueue("s-1", "m-2", "ada")
    if first == "take_over":
        assert await queue.take_over(0, 10) == []
    assert [job.message_id for job in await _take(queue)] == ["m-2"]


async def test_workers_that_make_the_group_at_once_do_not_fail(
    queue: JobQueue, other: JobQueue
) -> None:
    """Both have found that there is none; the second is too late and goes on as well."""
    await queue.enqueue("s-1", "m-1", "ada")
    await queue._create_group()
    await other._create_group()
    assert [job.message_id for job in await _take(other)] == ["m-1"]


async def test_what_a_dead_worker_left_is_taken_over_once(
    queue: JobQueue, other: JobQueue, redis: Redis
) -> None:
    job = await _taken(queue)
    await _age(redis, job, "worker-1")
    assert await other.take_over(_LONG_MS // 2, 10) == [job]
    # Taking it over is keeping it.
    assert await queue.take_over(_LONG_MS // 2, 10) == []
    assert await _pending(redis) == {job.job_id: "worker-2"}


async def test_a_job_of_a_living_worker_is_not_taken_over(
    queue: JobQueue, other: JobQueue, redis: Redis
) -> None:
    kept = await _taken(queue, "kept")
    left = await _taken(queue, "left")
    for job in (kept, left):
        await _age(redis, job, "worker-1")
    await queue.keep([kept.job_id])
    assert await other.take_over(_LONG_MS // 2, 10) == [left]
    assert await _pending(redis) == {kept.job_id: "worker-1", left.job_id: "worker-2"}


async def test_no_more_are_taken_over_than_asked_for(
    queue: JobQueue, other: JobQueue, redis: Redis
) -> None:
    jobs = [await _taken(queue, f"m-{number}") for number in range(3)]
    for job in jobs:
        await _age(redis, job, "worker-1")
    assert await other.take_over(_LONG_MS // 2, 2) == jobs[:2]
    assert await other.take_over(_LONG_MS // 2, 2) == jobs[2:]


async def test_a_job_is_found_behind_many_that_are_kept(
    queue: JobQueue, other: JobQueue, redis: Redis
) -> None:
    """A busy worker's older jobs must not hide a dead one's: XAUTOCLAIM looks at 10 per claim."""
    for number in range(40):
        await queue.enqueue(f"s-{number}", f"m-{number}", "ada")
    *_, last = await _take(queue, 40)
    await _age(redis, last, "worker-1")
    assert await other.take_over(_LONG_MS // 2, 1) == [last]


async def test_keeping_nothing_asks_nothing_of_redis(unreachable: JobQueue) -> None:
    await unreachable.keep([])


async def test_keeping_what_is_done_does_not_bring_it_back(queue: JobQueue, redis: Redis) -> None:
    job = await _taken(queue)
    await queue.done(job)
    await queue.keep([job.job_id])
    assert await _pending(redis) == {}
    assert await queue.depth() == 0


async def test_done_jobs_are_gone_and_others_are_not(
    queue: JobQueue, other: JobQueue, redis: Redis
) -> None:
    first, second = await _taken(queue, "m-1"), await _taken(queue, "m-2")
    await queue.done(first)
    await queue.done(first)
    assert await queue.depth() == 1
    assert await _pending(redis) == {second.job_id: "worker-1"}
    await _age(redis, second, "worker-1")
    assert await other.take_over(_LONG_MS // 2, 10) == [second]


async def test_a_job_that_is_handed_over_is_free_at_once(
    queue: JobQueue, other: JobQueue, redis: Redis
) -> None:
    job = await _taken(queue)
    await queue.hand_over(job)
    assert await queue.depth() == 1
    assert await _pending(redis) == {}
    [again] = await _take(other)
    assert again.job_id != job.job_id
    # How long it has waited is counted from its first entry.
    assert again == job._replace(job_id=again.job_id)


async def test_a_hand_over_sent_again_adds_nothing(
    queue: JobQueue, other: JobQueue, redis: Redis
) -> None:
    """Its reply was lost; by then another worker may have the job, or be done with it."""
    job = await _taken(queue)
    await queue.hand_over(job)
    await queue.hand_over(job)
    [again] = await _take(other)
    await queue.hand_over(job)
    assert await _pending(redis) == {again.job_id: "worker-2"}
    await other.done(again)
    await queue.hand_over(job)
    assert await queue.depth() == 0


async def test_depth_and_covered_count_what_waits_and_what_is_taken(queue: JobQueue) -> None:
    taken = await _taken(queue, "taken")
    await queue.enqueue("s-1", "waits", "ada")
    await queue.enqueue("s-2", "waits-too", "eve")
    assert await queue.depth() == 3
    assert await queue.covered() == {"taken", "waits", "waits-too"}
    await queue.done(taken)
    assert await queue.depth() == 2
    assert await queue.covered() == {"waits", "waits-too"}


async def test_a_job_that_was_deleted_while_it_was_taken_is_nobodys(
    queue: JobQueue, other: JobQueue, redis: Redis
) -> None:
    """Somebody tidied the stream by hand; no worker is given what is not there."""
    deleted, there = await _taken(queue, "deleted"), await _taken(queue, "there")
    for job in (deleted, there):
        await _age(redis, job, "worker-1")
    await redis.xdel(keys.JOBS, deleted.job_id)
    assert await other.take_over(_LONG_MS // 2, 10) == [there]
    await queue.keep([deleted.job_id])
    assert await _pending(redis) == {there.job_id: "worker-2"}


async def test_workers_that_are_gone_are_forgotten_unless_they_left_work(
    queue: JobQueue, queue_of: NewQueue, redis: Redis
) -> None:
    await _taken(queue)
    gone = queue_of("gone")
    job = await _taken(gone, "m-2")
    await gone.done(job)

    async def consumers() -> set[str]:
        found: Any = await redis.xinfo_consumers(keys.JOBS, keys.JOBS_GROUP)
        return {one["name"].decode() for one in found}

    await queue.forget_idle_consumers(_LONG_MS)
    assert await consumers() == {"worker-1", "gone"}
    await queue.forget_idle_consumers(-1)  # whoever was heard of up to this very millisecond
    assert await consumers() == {"worker-1"}


async def test_forgetting_without_a_group_is_nothing_to_do(queue: JobQueue, redis: Redis) -> None:
    await queue.forget_idle_consumers(0)
    await queue.enqueue("s-1", "m-1", "ada")
    await queue.forget_idle_consumers(0)
    assert await queue.depth() == 1


@pytest.fixture
def unreachable() -> JobQueue:
    redis = connect("unix:///nonexistent/valkey.sock", timeout_seconds=1, max_connections=1)
    return JobQueue(redis, consumer="worker-1")


@pytest.mark.parametrize(
    "action", ["depth", "enqueue", "take", "take_over", "keep", "done", "hand_over", "covered"]
)
async def test_without_redis_all_of_it_is_unavailable(unreachable: JobQueue, action: str) -> None:
    job = Job("1-0", "s-1", "m-1", 0)
    arguments = {
        "enqueue": ("s-1", "m-1", "ada"),
        "take": (1, 1),
        "take_over": (1, 1),
        "keep": (["1-0"],),
        "done": (job,),
        "hand_over": (job,),
    }
    with pytest.raises(Unavailable):
        await getattr(unreachable, action)(*arguments.get(action, ()))
