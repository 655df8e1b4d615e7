"""Reading what was said."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from app.db.engine import Database
from app.db.locking import read_message
from app.db.results import Unfinished
from app.db.rows import message_from, select_messages
from app.db.tables import UNFINISHED, chat_sessions
from app.db.tables import messages as table
from app.domain.errors import InvalidCursor, NotFound
from app.domain.messages import Message, Status


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


async def message(database: Database, *, user_id: str, message_id: str) -> Message:
    """Read a message of one of the user's sessions. Raises NotFound."""
    async with database.read() as connection:
        found = await connection.execute(
            select_messages()
            .join(chat_sessions, chat_sessions.c.id == table.c.session_id)
            .where(table.c.id == message_id, chat_sessions.c.user_id == user_id)
        )
        row = found.one_or_none()
    if row is None:
        raise NotFound
    return message_from(row)


async def message_by_id(database: Database, *, message_id: str) -> Message | None:
    """Read a message, whosever it is."""
    async with database.read() as connection:
        row = await read_message(connection, message_id)
    return None if row is None else message_from(row)


async def unfinished(
    database: Database, *, updated_before: datetime, limit: int, after: str | None
) -> list[Unfinished]:
    """Read answers without a final state that did not change since, by message id.

    ``after`` is the last message id of the page before. An answer changes here when it is
    accepted, begun or handed over, not while its text grows.
    """
    page = (
        select(table.c.session_id, table.c.id, table.c.attempt, table.c.status)
        .where(UNFINISHED, table.c.updated_at < updated_before)
        .order_by(table.c.id)
        .limit(limit)
    )
    if after is not None:
        page = page.where(table.c.id > after)
    async with database.read() as connection:
        rows = await connection.execute(page)
        return [
            Unfinished(session_id, message_id, attempt, Status(status))
            for session_id, message_id, attempt, status in rows
        ]
