"""Removing for good what deleted sessions have kept while they could be restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from app.db import sessions

if TYPE_CHECKING:
    from datetime import datetime

    from app.db.engine import Database

_PAGE = 100

logger = structlog.get_logger(__name__)


async def purge(database: Database, now: datetime) -> int:
    """Purge every session whose time to be restored is over; give how many there were.

    Each in a transaction of its own: one that is large must not hold up the writers for all.
    """
    purged = 0
    while due := await sessions.purge_due(database, now=now, limit=_PAGE):
        for session_id in due:
            if await sessions.purge_session(database, session_id=session_id, now=now):
                logger.info("session_purged", session_id=session_id)
                purged += 1
    return purged
