"""The lock that every change to a session begins with, and inserts that may come second."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import Table, TypedColumns, bindparam
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.rows import AnyRow, select_messages, select_sessions
from app.db.tables import chat_sessions, messages

# Made once: putting a statement together costs as much as having it carried out.
# FOR NO KEY UPDATE: the foreign keys of rows that are inserted elsewhere need not wait.
_SESSION: Final = (
    select_sessions()
    .where(chat_sessions.c.id == bindparam("session_id"))
    .with_for_update(key_share=True)
)
# The session's row is given as it is once the lock is had. A message never changes its session.
_SESSION_OF: Final = (
    select_sessions()
    .join(messages, messages.c.session_id == chat_sessions.c.id)
    .where(messages.c.id == bindparam("message_id"))
    .with_for_update(key_share=True, of=chat_sessions)
)
_MESSAGE: Final = select_messages().where(messages.c.id == bindparam("message_id"))


class LockedMessage(NamedTuple):
    """A message, and its session that nobody else changes until the transaction ends."""

    session: AnyRow
    message: AnyRow


async def lock_session(connection: AsyncConnection, session_id: str) -> AnyRow | None:
    """Keep everybody else from changing the session; None where it does not exist.

    A deleted session is given too. On SQLite the transaction itself is the lock.
    """
    found = await connection.execute(_SESSION, {"session_id": session_id})
    return found.one_or_none()


async def lock_session_of(connection: AsyncConnection, message_id: str) -> AnyRow | None:
    """Lock a message's session; None where either is gone, or the session is deleted.

    What the message says must be read after this: it may have changed while we waited.
    """
    found = await connection.execute(_SESSION_OF, {"message_id": message_id})
    session = found.one_or_none()
    return None if session is None or session.deleted_at is not None else session


async def lock_message(connection: AsyncConnection, message_id: str) -> LockedMessage | None:
    """Lock a message's session, then read the message; None where either is gone."""
    session = await lock_session_of(connection, message_id)
    message = None if session is None else await read_message(connection, message_id)
    return None if session is None or message is None else LockedMessage(session, message)


async def read_message(connection: AsyncConnection, message_id: str) -> AnyRow | None:
    found = await connection.execute(_MESSAGE, {"message_id": message_id})
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
