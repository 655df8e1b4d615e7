"""Sessions: begun, named, listed and deleted by their owner; nobody else can tell they exist."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.cursors import SessionCursor
from app.db.engine import Database
from app.db.locking import insert_if_absent, lock_session
from app.db.outbox import add_events
from app.db.results import EventsOf, SessionChange, SessionDeleted, SessionPage, SessionState
from app.db.rows import AnyRow, select_sessions, session_from
from app.db.tables import UNFINISHED, chat_sessions, messages
from app.domain.errors import NotFound, SessionExists
from app.domain.messages import Session


async def create_session(
    database: Database,
    *,
    user_id: str,
    session_id: str,
    title: str,
    now: datetime,
    events: EventsOf[Session],
) -> Session:
    """Begin an empty session; an empty ``title`` is filled in by its first question.

    Raises SessionExists where the caller has or had a session of this id, NotFound where it is
    somebody else's.
    """
    async with database.write() as connection:
        created = await insert_if_absent(
            connection,
            chat_sessions,
            {
                "id": session_id,
                "user_id": user_id,
                "title": title,
                "log_begun": False,
                "created_at": now,
                "updated_at": now,
            },
        )
        row = await _read(connection, session_id)
        if row is None or row.user_id != user_id:
            raise NotFound
        if not created:
            raise SessionExists
        session = session_from(row)
        await add_events(connection, events(session))
        return session


async def rename_session(
    database: Database,
    *,
    user_id: str,
    session_id: str,
    title: str,
    now: datetime,
    events: EventsOf[Session],
) -> SessionChange:
    """Give a session a title; its log counts as begun from now on. Raises NotFound."""
    async with database.write() as connection:
        row = await _lock_own(connection, user_id, session_id)
        await connection.execute(
            update(chat_sessions)
            .where(chat_sessions.c.id == session_id)
            .values(title=title, log_begun=True, updated_at=now)
        )
        session = session_from(await _lock_own(connection, user_id, session_id))
        await add_events(connection, events(session))
        return SessionChange(session, pristine=not row.log_begun)


async def delete_session(
    database: Database, *, user_id: str, session_id: str, now: datetime, events: EventsOf[Session]
) -> SessionDeleted:
    """Remove a session's messages and title for good, and leave a tombstone. Raises NotFound.

    An answer that is being generated cannot be finished any more; its id is given so that its
    worker can be told.
    """
    async with database.write() as connection:
        await _lock_own(connection, user_id, session_id)
        found = await connection.execute(
            select(messages.c.id).where(messages.c.session_id == session_id, UNFINISHED)
        )
        unfinished = found.scalar_one_or_none()
        await connection.execute(delete(messages).where(messages.c.session_id == session_id))
        await connection.execute(
            update(chat_sessions)
            .where(chat_sessions.c.id == session_id)
            .values(title="", log_begun=True, updated_at=now, deleted_at=now)
        )
        changed = await connection.execute(
            select_sessions().where(chat_sessions.c.id == session_id)
        )
        session = session_from(changed.one())
        await add_events(connection, events(session))
        return SessionDeleted(session, unfinished)


async def session(database: Database, *, user_id: str, session_id: str) -> Session:
    """Read one of the user's sessions. Raises NotFound."""
    async with database.read() as connection:
        row = await _read(connection, session_id)
    if row is None or row.user_id != user_id or row.deleted_at is not None:
        raise NotFound
    return session_from(row)


async def session_state(database: Database, *, user_id: str, session_id: str) -> SessionState:
    """Tell a session from its tombstone. Raises NotFound where it never was the user's."""
    async with database.read() as connection:
        row = await _read(connection, session_id)
    if row is None or row.user_id != user_id:
        raise NotFound
    return SessionState.OWNED if row.deleted_at is None else SessionState.DELETED


async def sessions(
    database: Database, *, user_id: str, limit: int, cursor: str | None
) -> SessionPage:
    """Read up to ``limit`` of the user's sessions, newest activity first.

    Raises InvalidCursor. A session that becomes active between two pages moves ahead of them.
    """
    page = (
        select_sessions()
        .where(chat_sessions.c.user_id == user_id, chat_sessions.c.deleted_at.is_(None))
        .order_by(chat_sessions.c.updated_at.desc(), chat_sessions.c.id.desc())
        # One more than asked for tells whether there is a next page.
        .limit(limit + 1)
    )
    if cursor is not None:
        place = tuple_(chat_sessions.c.updated_at, chat_sessions.c.id)
        page = page.where(place < tuple(SessionCursor.parse(cursor)))
    async with database.read() as connection:
        rows = (await connection.execute(page)).all()
    items = rows[:limit]
    end = None
    if len(rows) > limit:
        end = str(SessionCursor(items[-1].updated_at, items[-1].id))
    return SessionPage([session_from(row) for row in items], end)


async def _read(connection: AsyncConnection, session_id: str) -> AnyRow | None:
    found = await connection.execute(select_sessions().where(chat_sessions.c.id == session_id))
    return found.one_or_none()


async def _lock_own(connection: AsyncConnection, user_id: str, session_id: str) -> AnyRow:
    row = await lock_session(connection, session_id)
    if row is None or row.user_id != user_id or row.deleted_at is not None:
        raise NotFound
    return row
