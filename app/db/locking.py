"""The lock that every change to a session begins with, and inserts that may come second."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Table, TypedColumns, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.rows import AnyRow, select_messages, select_sessions
from app.db.tables import chat_sessions, messages


class LockedMessage(NamedTuple):
    """A message, and its session that nobody else changes until the transaction ends."""

    session: AnyRow
    message: AnyRow


async def lock_session(connection: AsyncConnection, session_id: str) -> AnyRow | None:
    """Keep everybody else from changing the session; None where it does not exist.

    A deleted session is given too. On SQLite the transaction itself is the lock.
    """
    found = await connection.execute(
        select_sessions()
        .where(chat_sessions.c.id == session_id)
        # FOR NO KEY UPDATE: the foreign keys of rows that are inserted elsewhere need not wait.
        .with_for_update(key_share=True)
    )
    return found.one_or_none()


async def lock_message(connection: AsyncConnection, message_id: str) -> LockedMessage | None:
    """Lock a message's session, then read the message; None where either is gone."""
    found = await connection.execute(
        select(messages.c.session_id).where(messages.c.id == message_id)
    )
    session_id = found.scalar_one_or_none()
    if session_id is None:
        return None
    session = await lock_session(connection, session_id)
    if session is None or session.deleted_at is not None:
        return None
    # What was read before the lock may have changed while we waited for it.
    message = await read_message(connection, message_id)
    return None if message is None else LockedMessage(session, message)


async def read_message(connection: AsyncConnection, message_id: str) -> AnyRow | None:
    found = await connection.execute(select_messages().where(messages.c.id == message_id))
    return found.one_or_none()


async def insert_if_absent(
    connection: AsyncConnection, table: Table[TypedColumns], values: dict[str, Any]
) -> bool:
    """Insert a row unless one with the same key is there; give whether it was inserted.

    Where another transaction is inserting the same key, this waits for it to end.
    """
    insert = (
        sqlite.insert(table).on_conflict_do_nothing()
        if connection.dialect.name == "sqlite"
        else postgresql.insert(table).on_conflict_do_nothing()
    )
    inserted = await connection.execute(
        insert.values(values), execution_options={"preserve_rowcount": True}
    )
    return inserted.rowcount == 1
