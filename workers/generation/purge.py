"""Removing for good what deleted sessions have kept while they could be restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from app.db import sessions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from app.db.engine import Database

_PAGE = 100

logger = structlog.get_logger(__name__)


async def purge(
    database: Database,
    now: datetime,
    forget: Callable[[str], Awaitable[None]] | None = None,
) -> int:
    """Purge every session that nobody can restore any more; give how many there were.

    ``forget`` removes what Redis has of one. Each in transactions of its own: one that is large
    must not hold up the writers for all. Raises Unavailable; what was not done is due still.
    """
    purged = 0
    while due := await purge_some(database, now, forget=forget, limit=_PAGE):
        purged += due
    return purged


async def purge_some(
    database: Database,
    now: datetime,
    *,
    forget: Callable[[str], Awaitable[None]] | None = None,
    limit: int,
) -> int:
    """Purge up to ``limit`` sessions, as ``purge`` does; 0 means that none was due."""
    due = await sessions.purge_due(database, now=now, limit=limit)
    for session_id in due:
        if not await sessions.purge_session(database, session_id=session_id, now=now):
            continue
        # Only now: as long as it might be restored, its log is not ours to delete.
        if forget is not None:
            await forget(session_id)
        await sessions.forget_session(database, session_id=session_id)
        logger.info("session_purged", session_id=session_id)
    return len(due)
