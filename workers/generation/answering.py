"""One answer, from the job to its final state, over as many claims as that takes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from app.streams.session_log import Claimed, Held
from workers.generation.attempt import AnswerParts, Attempt, Ended
from workers.generation.held import HeldAnswer
from workers.generation.kept import Remembered

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.streams.jobs import Job

_CLAIM_RETRY_SECONDS = (0.02, 0.05, 0.1, 0.2)
_ROUNDS = 5


class Answering:
    """Answers one job at a time for each session; many jobs at once over all of them."""

    def __init__(self, parts: AnswerParts) -> None:
        """Take the parts."""
        self._parts = parts

    async def answer(self, job: Job, register: Callable[[HeldAnswer], None]) -> Ended:
        """Bring the job's answer to its final state, over as many claims as that takes.

        ``register`` is told of each lease, which must be renewed from then on.
        """
        remembered: Remembered | None = None
        for _ in range(_ROUNDS):
            claimed = await self._claim(job)
            if claimed is None:
                return Ended.LEFT
            held = HeldAnswer(job, claimed.lease)
            register(held)
            attempt = Attempt(self._parts, held, claimed, remembered)
            ended = await attempt.run()
            if ended is not Ended.AGAIN:
                return ended
            self._parts.metrics.lease_lost.inc()
            remembered = attempt.remembered
        return Ended.LEFT

    async def _claim(self, job: Job) -> Claimed | None:
        # A lease that is held is about to end: its worker died, or is just finishing the answer
        # before. Longer than a lease's time it is held by somebody alive.
        until = time.monotonic() + self._parts.limits.lease_ms / 1000 + 0.5
        tries = 0
        while True:
            found = await self._parts.log.claim(
                job.session_id, job.message_id, self._parts.node_id, self._parts.limits.lease_ms
            )
            if not isinstance(found, Held):
                return found
            if time.monotonic() > until:
                return None
            pause = _CLAIM_RETRY_SECONDS[min(tries, len(_CLAIM_RETRY_SECONDS) - 1)]
            await asyncio.sleep(min(pause, found.retry_after_ms / 1000 + 0.005))
            tries += 1
