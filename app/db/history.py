"""Reading what was said."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, select

from app.db.engine import Database
from app.db.locking import read_message
from app.db.results import SessionVersion, Unfinished
from app.db.rows import message_from, select_messages
from app.db.tables import UNFINISHED, chat_sessions
from app.db.tables import messages as table
from app.domain.errors import InvalidCursor, NotFound
from app.domain.messages import Message, Status

_VERSION: Final = select(
    chat_sessions.c.user_id,
    chat_sessions.c.deleted_at,
    chat_sessions.c.revision,
    chat_sessions.c.updated_at,
).where(chat_sessions.c.id == bindparam("session_id"))


async def messages(
    database: Database, *, session_id: str, limit: int, before: str | None
) -> list[Message]:
    """Read the newest ``limit`` messages that precede the message ``before``, oldest first.

    Does not ask whose session it is. Raises InvalidCursor where ``before`` is not a message of
    the session.
    """
    page = (
        select_messages()
        .where(table.c.session_id == session_id)
        .order_by(table.c.ordinal.desc())
        .limit(limit)
    )
    async with database.read() as connection:
        if before is not None:
            found = await connection.execute(
                select(table.c.ordinal).where(
                    table.c.id == before, table.c.session_id == session_id
                )
            )
            ordinal = found.scalar_one_or_none()
            if ordinal is None:
                raise InvalidCursor
            page = page.where(table.c.ordinal < ordinal)
        rows = (await connection.execute(page)).all()
    return [message_from(row) for row in reversed(rows)]


async def version(database: Database, *, user_id: str, session_id: str) -> SessionVersion:
    """Read which version one of the user's sessions has. Raises NotFound, also for a tombstone.

    Messages that are read after this are those of this version, or newer ones.
    """
    async with database.read() as connection:
        found = await connection.execute(_VERSION, {"session_id": session_id})
        row = found.one_or_none()
    if row is None or row.user_id != user_id or row.deleted_at is not None:
        raise NotFound
    return SessionVersion(row.revision, row.updated_at)


async def message(database: Database, *, user_id: str, message_id: str) -> Message:
    """Read a message of one of the user's sessions. Raises NotFound."""
    async with database.read() as connection:
        found = await connection.execute(
            select_messages()
            .join(chat_sessions, chat_sessions.c.id == table.c.session_id)
            .where(
                table.c.id == message_id,
                chat_sessions.c.user_id == user_id,
                # What was deleted stays for a while, to be restored.
                chat_sessions.c.deleted_at.is_(None),
            )
        )
        row = found.one_or_none()
    if row is None:
        raise NotFound
    return message_from(row)


async def cursor_after(
    database: Database, *, session_id: str, message_id: str, count: int
) -> str | None:
    """Give what ``messages`` needs as ``before`` to end ``count`` messages after this one.

    None where there are not that many. Does not ask whose session it is; raises NotFound where
    the message is not of the session.
    """
    async with database.read() as connection:
        found = await connection.execute(
            select(table.c.ordinal).where(
                table.c.id == message_id, table.c.session_id == session_id
            )
        )
        ordinal = found.scalar_one_or_none()
        if ordinal is None:
            raise NotFound
        later = await connection.execute(
            select(table.c.id)
            .where(table.c.session_id == session_id, table.c.ordinal > ordinal)
            .order_by(table.c.ordinal)
            .offset(count)
            .limit(1)
        )
        return later.scalar_one_or_none()


async def message_by_id(database: Database, *, message_id: str) -> Message | None:
    """Read a message, whosever it is."""
    async with database.read() as connection:
        row = await read_message(connection, message_id)
    return None if row is None else message_from(row)


async def unfinished(database: Database, *, limit: int, after: str | None) -> list[Unfinished]:
    """Read answers without a final state, by message id.

    ``after`` is the last message id of the page before.
    """
    page = (
        select(
            chat_sessions.c.user_id,
            table.c.session_id,
            table.c.id,
            table.c.attempt,
            table.c.status,
        )
        .join_from(table, chat_sessions, table.c.session_id == chat_sessions.c.id)
        .where(UNFINISHED)
        .order_by(table.c.id)
        .limit(limit)
    )
    if after is not None:
        page = page.where(table.c.id > after)
    async with database.read() as connection:
        rows = await connection.execute(page)
        return [
            Unfinished(user_id, session_id, message_id, attempt, Status(status))
            for user_id, session_id, message_id, attempt, status in rows
        ]
