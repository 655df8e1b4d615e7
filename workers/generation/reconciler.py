"""Finding answers that nothing covers, and enqueuing them again.

Redis was lost, or a web node died between the commit and the queue: the database says unfinished
and there is no job. One worker at a time looks; two that look at once do no harm.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from app.db import history
from app.domain.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.db.engine import Database
    from app.streams.election import Election
    from app.streams.jobs import JobQueue
    from app.telemetry import Metrics

_PAGE = 500
_GRACE_SECONDS = 1.5
"""A question is between its commit and its job no longer than this, unless its node died."""

_FORGET_CONSUMERS_MS = 600_000

logger = structlog.get_logger(__name__)


class Reconciler:
    """Looks every few seconds."""

    def __init__(
        self,
        *,
        database: Database,
        jobs: JobQueue,
        election: Election,
        period_seconds: float,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the parts; ``monotonic`` gives seconds, from any beginning."""
        self._database = database
        self._jobs = jobs
        self._election = election
        self._period_seconds = period_seconds
        self._metrics = metrics
        self._monotonic = monotonic
        self._uncovered_since: dict[str, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._period_seconds)
            try:
                if await self._election.hold():
                    await self.reconcile()
            except Unavailable as failure:
                logger.warning("reconciling_failed", reason=failure.detail)

    async def reconcile(self) -> int:
        """Enqueue every unfinished answer that has had no job for a while; give how many.

        For how long is seen with this process's own clock. What the row says of its age was
        written by another's, and an hour between the two would be an hour without an answer.
        """
        now = self._monotonic()
        before, self._uncovered_since = self._uncovered_since, {}
        after: str | None = None
        enqueued = 0
        self._metrics.queue_depth.set(await self._jobs.depth())
        await self._jobs.forget_idle_consumers(_FORGET_CONSUMERS_MS)
        while True:
            found = await history.unfinished(self._database, limit=_PAGE, after=after)
            if not found:
                return enqueued
            # The database first, then the queue: an answer that ends in between looks uncovered,
            # and its second job finds it final.
            covered = await self._jobs.covered()
            for answer in found:
                if answer.message_id in covered:
                    continue
                since = before.get(answer.message_id, now)
                if now - since < _GRACE_SECONDS:
                    self._uncovered_since[answer.message_id] = since
                else:
                    await self._jobs.enqueue(answer.session_id, answer.message_id, answer.user_id)
                    self._metrics.reconciled.inc()
                    logger.info(
                        "answer_reconciled",
                        session_id=answer.session_id,
                        message_id=answer.message_id,
                    )
                    enqueued += 1
            if len(found) < _PAGE:
                return enqueued
            after = found[-1].message_id
