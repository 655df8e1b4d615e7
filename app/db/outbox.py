"""Events wait here until the relay has published them.

They are inserted under the lock of the session that they speak of, so that the ``sequence`` of one
session's events is the order in which its changes were committed. Between sessions it is not: a
larger number may become visible first. What is to be published is therefore found by
``published_at``, never by «everything after the last number».
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import UNPUBLISHED, outbox
from app.domain.outbox import OutboxEvent

_ADD: Final = insert(outbox)


async def add_events(connection: AsyncConnection, events: Sequence[OutboxEvent]) -> None:
    """Write events in the caller's transaction, in this order."""
    if events:
        await connection.execute(_ADD, [event._asdict() for event in events])


async def outbox_depth(database: Database) -> int:
    """Count the events that wait for publication."""
    async with database.read() as connection:
        counted = await connection.execute(
            select(func.count()).select_from(outbox).where(UNPUBLISHED)
        )
        return counted.scalar_one()
