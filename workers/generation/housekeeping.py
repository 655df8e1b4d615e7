"""What goes without anybody asking for it: purged sessions, erased accounts, retired sessions.

One worker at a time does it, in short steps; two at once do no harm, since each step looks again
under the session's own lock. What a worker leaves half done is still recorded as to be done, and
the next one goes on with it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from app.db import erasure
from app.domain.errors import Unavailable
from workers.generation.purge import purge_some

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from app.chat.deletion import Deletion
    from app.db.engine import Database
    from app.streams.election import Election

_STEP = 50
"""Sessions between two looks at the seat."""

_LATE = timedelta(minutes=3)
"""An erasure is over no sooner: a node may have known the user for a minute, and a question that it
let pass may take a while to be stored. The session that it made is then found by the last look."""

logger = structlog.get_logger(__name__)


class Housekeeper:
    """Looks every few seconds."""

    def __init__(
        self,
        *,
        database: Database,
        deletion: Deletion,
        election: Election,
        period_seconds: float,
        retention: timedelta | None,
        clock: Callable[[], datetime],
    ) -> None:
        """Take the parts; sessions without activity for ``retention`` are deleted, None: never."""
        self._database = database
        self._deletion = deletion
        self._election = election
        self._period_seconds = period_seconds
        self._retention = retention
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._period_seconds)
            try:
                # Asked before every step: one look may have thousands.
                while await self._election.hold() and await self.step():
                    pass
            except Unavailable as failure:
                logger.warning("housekeeping_failed", reason=failure.detail)

    async def step(self) -> int:
        """Do a bounded part of what is to be done; give how much, 0 where nothing is left."""
        now = self._clock()
        done = await self._erase(now)
        if self._retention is not None:
            done += await self._deletion.retire(before=now - self._retention, limit=_STEP)
        done += await purge_some(self._database, now, forget=self._deletion.forget, limit=_STEP)
        return done

    async def _erase(self, now: datetime) -> int:
        done = 0
        for user_id, since in await erasure.being_erased(self._database, limit=_STEP):
            if done >= _STEP:
                break
            erased = await self._deletion.erase(user_id, limit=_STEP)
            done += erased
            is_over = not erased and now - since >= _LATE
            if is_over and await erasure.end_erasure(self._database, user_id=user_id):
                logger.info("account_erased", user_id=user_id)
                done += 1
        return done
