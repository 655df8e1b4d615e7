"""Events wait here until the relay has published them.

They are inserted under the lock of the session that they speak of, so that the ``sequence`` of one
session's events is the order in which its changes were committed. Between sessions it is not: a
larger number may become visible first. What is to be published is therefore found by
``published_at``, never by «everything after the last number».
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import UNPUBLISHED, outbox
from app.domain.outbox import OutboxEvent
from app.domain.redaction import redacted

_ADD: Final = insert(outbox)
_REDACT_PAGE: Final = 200
_REWRITE: Final = (
    update(outbox)
    .where(outbox.c.sequence == bindparam("which"))
    .values(payload=bindparam("rewritten"))
)


async def add_events(connection: AsyncConnection, events: Sequence[OutboxEvent]) -> None:
    """Write events in the caller's transaction, in this order."""
    if events:
        await connection.execute(_ADD, [event._asdict() for event in events])


async def redact_events(connection: AsyncConnection, key: str) -> None:
    """Take the content out of all events of this key, published or not.

    Belongs into the transaction that removes what the events repeat. What is published from now on
    has no content; what was published before is with whoever read it.
    """
    after = 0
    while True:
        found = await connection.execute(
            select(outbox.c.sequence, outbox.c.payload)
            .where(outbox.c.key == key, outbox.c.sequence > after)
            .order_by(outbox.c.sequence)
            # A long conversation is not held in memory whole.
            .limit(_REDACT_PAGE)
        )
        rows = found.all()
        changed = [
            {"which": row.sequence, "rewritten": payload}
            for row in rows
            if (payload := redacted(row.payload)) is not None
        ]
        if changed:
            await connection.execute(_REWRITE, changed)
        if len(rows) < _REDACT_PAGE:
            return
        after = rows[-1].sequence


async def outbox_depth(database: Database) -> int:
    """Count the events that wait for publication."""
    async with database.read() as connection:
        counted = await connection.execute(
            select(func.count()).select_from(outbox).where(UNPUBLISHED)
        )
        return counted.scalar_one()
