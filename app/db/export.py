"""Reading all that a user has, page by page; no page depends on a connection of the one before."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select

from app.db.engine import Database
from app.db.rows import message_from, select_messages, select_sessions, session_from
from app.db.tables import chat_sessions, messages
from app.domain.messages import Message, Session


class MessagesAfter(NamedTuple):
    """Messages in their order, and where the next page begins; None after the last one."""

    items: list[Message]
    after: int | None


async def sessions_after(
    database: Database, *, user_id: str, after: str, limit: int
) -> list[Session]:
    """Read up to ``limit`` of a user's sessions by id, those after ``after``.

    By id and not by activity: a session that becomes active between two pages keeps its place.
    """
    async with database.read() as connection:
        found = await connection.execute(
            select_sessions()
            .where(
                chat_sessions.c.user_id == user_id,
                chat_sessions.c.deleted_at.is_(None),
                chat_sessions.c.id > after,
            )
            .order_by(chat_sessions.c.id)
            .limit(limit)
        )
        return [session_from(row) for row in found]


async def messages_after(
    database: Database, *, user_id: str, session_id: str, after: int, limit: int
) -> MessagesAfter:
    """Read up to ``limit`` messages after the ordinal ``after``, -1 for the first.

    There are none where the session is not the user's, or was deleted meanwhile.
    """
    is_theirs = select(chat_sessions.c.id).where(
        chat_sessions.c.id == session_id,
        chat_sessions.c.user_id == user_id,
        chat_sessions.c.deleted_at.is_(None),
    )
    async with database.read() as connection:
        found = await connection.execute(
            select_messages()
            .where(messages.c.session_id.in_(is_theirs), messages.c.ordinal > after)
            .order_by(messages.c.ordinal)
            .limit(limit)
        )
        rows = found.all()
    last = rows[-1].ordinal if len(rows) == limit else None
    return MessagesAfter([message_from(row) for row in rows], last)
