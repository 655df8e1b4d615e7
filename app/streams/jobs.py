"""The queue of answers to be generated: users take turns, and workers take what comes next.

A Redis stream with one consumer group says how much there is to do and who does it; which job an
entry stands for is decided when a worker reads it (``lua/bind.lua``), so that one user's hundred
questions do not stand before another's one. From then on the entry is that job: it stays pending
with the worker until ``done``; the worker keeps it fresh while it lives, and any other takes it
over once it has not been kept for a lease's time. A worker that dies between reading and binding
loses nothing: whoever takes the entry over binds it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.streams import keys, scripts
from app.streams.connection import reachable

_DEPTH_SECONDS = 2.0


class Job(NamedTuple):
    """An answer that somebody waits for."""

    job_id: str
    session_id: str
    message_id: str
    enqueued_ms: int
    """Unix time in ms at which it entered the queue first."""


class JobQueue:
    """The queue as one worker, or a web node that only enqueues, sees it."""

    def __init__(self, redis: Redis, *, consumer: str, blocking: Redis | None = None) -> None:
        """Take the worker's node id, and a client whose timeout is longer than any ``block_ms``.

        A blocking read on the client of the writes would hold one of its connections, and one
        that blocks longer than the socket's timeout fails each time.
        """
        self._redis = redis
        self._blocking = blocking or redis
        self._consumer = consumer
        self._enqueue = scripts.load("enqueue", "queue")
        self._bind = scripts.load("bind", "queue")
        self._done = scripts.load("done", "queue")
        self._hand_over = scripts.load("hand_over", "queue")
        self._covered = scripts.load("covered", "queue")

    async def depth(self) -> int:
        """Count the answers that wait or are being generated.

        Raises Unavailable sooner than other calls: whoever asks a question is waiting, and a
        server that is frozen is to be told from one that is slow in a moment and not in five
        seconds.
        """
        with reachable():
            async with asyncio.timeout(_DEPTH_SECONDS):
                return int(await self._redis.xlen(keys.JOBS))

    async def enqueue(self, session_id: str, message_id: str, user_id: str) -> None:
        """Add a job to its user's line; users are served in turns.

        A job that is there twice is harmless: the second finds the answer final.
        """
        with reachable():
            await scripts.run(
                self._redis,
                self._enqueue,
                [keys.JOBS, keys.WAITING, keys.TURNS],
                user_id,
                session_id,
                message_id,
                _now_ms(),
            )

    async def take(self, count: int, block_ms: int) -> list[Job]:
        """Take up to ``count`` new jobs, those whose turn it is, waiting for the first.

        Empty after ``block_ms`` without one.
        """
        with reachable():
            try:
                return await self._read(count, block_ms)
            except ResponseError as failure:
                if not str(failure).startswith("NOGROUP"):
                    raise
                # First start, or Redis was wiped: the group goes with the stream.
                await self._create_group()
                return await self._read(count, block_ms)

    async def take_over(self, idle_ms: int, count: int) -> list[Job]:
        """Take up to ``count`` jobs whose worker has not kept them for ``idle_ms``."""
        with reachable():
            try:
                # Not XAUTOCLAIM: it looks at ten entries per claim from the oldest on, and would
                # not see a dead worker's jobs behind many that living ones are busy with.
                idle = await self._redis.xpending_range(
                    keys.JOBS, keys.JOBS_GROUP, "-", "+", count, idle=idle_ms
                )
            except ResponseError as failure:
                if not str(failure).startswith("NOGROUP"):
                    raise
                await self._create_group()
                return []
            if not idle:
                return []
            # Of two that found the same ones, the second finds them idle no more.
            job_ids: list[Any] = [found["message_id"] for found in idle]
            claimed: Any = await self._redis.xclaim(
                keys.JOBS, keys.JOBS_GROUP, self._consumer, idle_ms, job_ids
            )
            return await self._jobs_of(claimed)

    async def keep(self, job_ids: Sequence[str]) -> None:
        """Say that these are still being worked on."""
        if not job_ids:
            return
        with reachable():
            await self._redis.xclaim(
                keys.JOBS, keys.JOBS_GROUP, self._consumer, 0, list(job_ids), justid=True
            )

    async def done(self, job: Job) -> None:
        """Forget a job whose answer is final, in the database and in the log."""
        with reachable():
            await scripts.run(
                self._redis, self._done, [keys.JOBS, keys.TAKEN], keys.JOBS_GROUP, job.job_id
            )

    async def hand_over(self, job: Job) -> None:
        """Give a job back, so that another worker takes it at once, before all that wait."""
        with reachable():
            await scripts.run(
                self._redis,
                self._hand_over,
                [keys.JOBS, keys.WAITING, keys.TAKEN],
                keys.JOBS_GROUP,
                job.job_id,
                job.session_id,
                job.message_id,
                job.enqueued_ms,
            )

    async def covered(self) -> set[str]:
        """Give the message ids of all jobs, waiting or taken; the queue's limit bounds them.

        It also puts right what workers of the version before, or people, left in disorder, so
        that a job that is covered is one that will be taken.
        """
        with reachable():
            jobs: list[bytes] = await scripts.run(
                self._redis, self._covered, [keys.JOBS, keys.WAITING, keys.TAKEN]
            )
        return {_job(b"", job).message_id for job in jobs}

    async def forget_idle_consumers(self, idle_ms: int) -> None:
        """Drop the group's memory of workers that are gone and have nothing pending."""
        with reachable():
            try:
                consumers = await self._redis.xinfo_consumers(keys.JOBS, keys.JOBS_GROUP)
            except ResponseError:
                return
            for consumer in consumers:
                if consumer["pending"] == 0 and consumer["idle"] > idle_ms:
                    await self._redis.xgroup_delconsumer(
                        keys.JOBS, keys.JOBS_GROUP, consumer["name"]
                    )

    async def _read(self, count: int, block_ms: int) -> list[Job]:
        replies: Any = await self._blocking.xreadgroup(
            keys.JOBS_GROUP, self._consumer, {keys.JOBS: ">"}, count=count, block=block_ms
        )
        return [job for _, entries in replies for job in await self._jobs_of(entries)]

    async def _jobs_of(self, entries: Sequence[Any]) -> list[Job]:
        """Bind entries that are pending with this worker to their jobs."""
        if not entries:
            return []
        bound: list[bytes] = await scripts.run(
            self._redis,
            self._bind,
            [keys.JOBS, keys.WAITING, keys.TAKEN, keys.TURNS],
            keys.JOBS_GROUP,
            *(job_id for job_id, _ in entries),
        )
        return [_job(*pair) for pair in zip(bound[::2], bound[1::2], strict=True)]

    async def _create_group(self) -> None:
        try:
            await self._redis.xgroup_create(keys.JOBS, keys.JOBS_GROUP, id="0", mkstream=True)
        except ResponseError as failure:
            if not str(failure).startswith("BUSYGROUP"):
                raise


def _job(job_id: bytes, job: bytes) -> Job:
    enqueued_ms, session_id, message_id = job.decode().split(" ")
    return Job(job_id.decode(), session_id, message_id, int(enqueued_ms))


def _now_ms() -> int:
    return int(time.time() * 1000)
