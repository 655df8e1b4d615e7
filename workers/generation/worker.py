"""The generation worker: many answers at once, their leases and jobs kept alive together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, NamedTuple

import structlog

from app.domain.errors import Unavailable
from app.ending import end
from app.streams import keys
from app.streams.session_log import AppendOutcome
from workers.generation.attempt import Ended
from workers.generation.flusher import INTERRUPTIONS
from workers.generation.held import NOT_BEGUN, HeldAnswer, Interruption

if TYPE_CHECKING:
    from app.streams.jobs import Job, JobQueue
    from app.streams.session_log import SessionLog
    from app.telemetry import Metrics
    from workers.generation.answering import Answering

_TAKE_BLOCK_MS = 500
_TAKE_JOBS = 64
_RETRY_SECONDS = 0.5

logger = structlog.get_logger(__name__)


class WorkerLimits(NamedTuple):
    """What bounds a worker."""

    concurrency: int
    lease_ms: int
    stop_seconds: float


class Worker:
    """Takes jobs while it has room, and gives all of them back when it stops."""

    def __init__(
        self,
        *,
        node_id: str,
        log: SessionLog,
        jobs: JobQueue,
        answering: Answering,
        limits: WorkerLimits,
        metrics: Metrics,
    ) -> None:
        """Take the parts."""
        self.node_id = node_id
        self._log = log
        self._jobs = jobs
        self._answering = answering
        self._limits = limits
        self._metrics = metrics
        self._held: dict[str, HeldAnswer] = {}
        self._answers: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until ``stop``; then hand over what is unfinished, within the stop's bound."""
        # Renewal outlives the taking: leases are kept until their answers are handed over.
        renewing = asyncio.ensure_future(self._renew_periodically())
        try:
            # Neither is cancelled by a stop: a read whose reply is thrown away would have taken
            # jobs that nobody knows of.
            await asyncio.gather(self._take_new(), self._take_idle())
            await self._hand_over()
        finally:
            await end(renewing)

    def stop(self) -> None:
        """Take no more jobs and hand over those in the making."""
        self._stopping.set()
        for held in self._held.values():
            held.interrupt(Interruption.HANDOVER)

    def told(self, channel: str, payload: bytes) -> None:
        """Take a stop that was published to this worker."""
        if channel != keys.worker_channel(self.node_id):
            return
        # A web node of the version before names no attempt.
        session_id, message_id, *named = payload.decode().split(" ")
        meant_for = int(named[0]) if named else NOT_BEGUN
        held = self._held.get(session_id)
        # A stop may arrive when the same answer was asked for again: it was not meant for that.
        if held is not None and held.job.message_id == message_id and held.attempt <= meant_for:
            held.interrupt(Interruption.CANCELLED)

    async def _take_new(self) -> None:
        while not self._stopping.is_set():
            room = self._limits.concurrency - len(self._answers)
            if room <= 0:
                await self._pause_for_room()
                continue
            try:
                found = await self._jobs.take(min(room, _TAKE_JOBS), _TAKE_BLOCK_MS)
            except Unavailable as failure:
                logger.warning("taking_jobs_failed", reason=failure.detail)
                await self._pause(_RETRY_SECONDS)
                continue
            self._begin(found, how="new")

    async def _take_idle(self) -> None:
        # Often enough that a dead worker's answer goes on within its lease plus a second.
        pause = min(0.5, self._limits.lease_ms / 4000)
        while not self._stopping.is_set():
            await self._pause(pause)
            room = self._limits.concurrency - len(self._answers)
            if room <= 0:
                continue
            try:
                found = await self._jobs.take_over(self._limits.lease_ms, min(room, _TAKE_JOBS))
            except Unavailable:
                continue
            self._begin(found, how="taken_over")

    def _begin(self, found: list[Job], *, how: str) -> None:
        for job in found:
            running = self._answers.get(job.job_id)
            if running is not None:
                # Ours all along, but not kept in time: it is being worked on.
                continue
            self._metrics.jobs_claimed.labels(how=how).inc()
            task = asyncio.get_running_loop().create_task(self._work(job))
            self._answers[job.job_id] = (job, task)

    async def _work(self, job: Job) -> None:
        held: HeldAnswer | None = None

        def register(new: HeldAnswer) -> None:
            nonlocal held
            held = self._held[job.session_id] = new
            if self._stopping.is_set():
                new.interrupt(Interruption.HANDOVER)

        try:
            await self._after_others(job)
            if self._stopping.is_set():
                await self._jobs.hand_over(job)
                return
            ended = await self._answering.answer(job, register)
            if ended is Ended.DONE:
                await self._jobs.done(job)
            elif ended is Ended.HANDED_OVER:
                await self._jobs.hand_over(job)
        except Unavailable as failure:
            # Left pending: it is taken over, by whoever can, once it has been idle for a lease.
            logger.warning("answer_left", message_id=job.message_id, reason=failure.detail)
        except Exception:
            logger.exception("job_crashed", message_id=job.message_id)
        finally:
            if held is not None and self._held.get(job.session_id) is held:
                del self._held[job.session_id]
            del self._answers[job.job_id]

    async def _after_others(self, job: Job) -> None:
        # A node may claim its own lease again, so two of its answers in one session (the next
        # question, the end of the one before that a dead worker left, a job that is there twice)
        # must not run side by side: each waits for those that were begun before it.
        while True:
            before = [
                task
                for other, task in itertools.takewhile(
                    lambda begun: begun[0].job_id != job.job_id, self._answers.values()
                )
                if other.session_id == job.session_id
            ]
            if not before:
                return
            await asyncio.wait(before)

    async def _renew_periodically(self) -> None:
        period = self._limits.lease_ms / 3000
        while True:
            await asyncio.sleep(period)
            try:
                await self._renew()
            except Unavailable as failure:
                logger.warning("renewal_failed", reason=failure.detail)

    async def _renew(self) -> None:
        held = list(self._held.values())
        kept = {job.job_id for job, _ in self._answers.values()}
        if held:
            outcomes = await self._log.renew(
                [(answer.lease, answer.job.message_id, answer.attempt) for answer in held],
                self._limits.lease_ms,
            )
            for answer, outcome in zip(held, outcomes, strict=True):
                if outcome is not AppendOutcome.OK:
                    answer.interrupt(INTERRUPTIONS[outcome])
                if outcome is AppendOutcome.SUPERSEDED:
                    # The job is with the one who has the lease now.
                    kept.discard(answer.job.job_id)
        await self._jobs.keep(sorted(kept))

    async def _hand_over(self) -> None:
        for held in self._held.values():
            held.interrupt(Interruption.HANDOVER)
        tasks = [task for _, task in self._answers.values()]
        if not tasks:
            return
        _, unfinished = await asyncio.wait(tasks, timeout=self._limits.stop_seconds)
        if unfinished:
            logger.warning("answers_left_at_stop", count=len(unfinished))
            await end(*unfinished)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _pause_for_room(self) -> None:
        tasks = [task for _, task in self._answers.values()]
        await asyncio.wait(tasks, timeout=_RETRY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
