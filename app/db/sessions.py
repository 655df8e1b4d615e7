"""Sessions: begun, named, listed and deleted by their owner; nobody else can tell they exist.

A session may be deleted for good, or put away: then it is as deleted to everybody, and for a while
its owner may take that back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace
from sqlalchemy import delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.cursors import SessionCursor
from app.db.engine import Database
from app.db.locking import insert_if_absent, lock_session
from app.db.outbox import add_events, redact_events
from app.db.results import (
    EventsOf,
    SessionChange,
    SessionDeleted,
    SessionPage,
    SessionState,
    TextSoFar,
)
from app.db.rows import AnyRow, message_from, select_messages, select_sessions, session_from
from app.db.tables import KEPT, NEXT_REVISION, UNFINISHED, UNPURGED, chat_sessions, messages
from app.domain.errors import NotFound, SessionExists
from app.domain.messages import Message, Session, Status, timestamp

AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""As ``purge_at``: nobody can restore the session by any clock, and it is due for all of them."""


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
            .values(title=title, log_begun=True, updated_at=now, revision=NEXT_REVISION)
        )
        session = session_from(await _lock_own(connection, user_id, session_id))
        await add_events(connection, events(session))
        return SessionChange(session, pristine=not row.log_begun)


async def delete_session(
    database: Database,
    *,
    user_id: str,
    session_id: str,
    now: datetime,
    events: EventsOf[Session],
    idle_before: datetime | None = None,
) -> SessionDeleted:
    """Remove a session's messages and title for good, and leave a tombstone. Raises NotFound.

    With ``idle_before`` NotFound too where something has happened in it since that moment. What
    the outbox has of it loses its content. An answer that is being generated cannot be finished
    any more; its id is given so that its worker can be told. What Redis has of it is due to be
    purged, whether or not the caller gets to do that.
    """
    async with database.write() as connection:
        row = await _lock_own(connection, user_id, session_id)
        if idle_before is not None and row.updated_at >= idle_before:
            raise NotFound
        found = await connection.execute(
            select(messages.c.id).where(messages.c.session_id == session_id, UNFINISHED)
        )
        unfinished = found.scalar_one_or_none()
        await connection.execute(delete(messages).where(messages.c.session_id == session_id))
        await connection.execute(
            update(chat_sessions)
            .where(chat_sessions.c.id == session_id)
            .values(
                title="",
                log_begun=True,
                updated_at=now,
                deleted_at=now,
                purge_at=AT_ONCE,
                revision=NEXT_REVISION,
            )
        )
        await redact_events(connection, session_id)
        changed = await connection.execute(
            select_sessions().where(chat_sessions.c.id == session_id)
        )
        session = session_from(changed.one())
        await add_events(connection, events(session))
        return SessionDeleted(session, unfinished)


async def put_away_session(
    database: Database,
    *,
    user_id: str,
    session_id: str,
    text_so_far: TextSoFar | None,
    purge_at: datetime,
    now: datetime,
    events: EventsOf[SessionDeleted],
) -> SessionDeleted:
    """Delete a session so that ``restore_session`` brings it back until ``purge_at``.

    To everybody it is deleted at once. Its messages and its title stay until ``purge_session``.
    An answer that is being generated ends as cancelled, with ``text_so_far`` where that is its.
    Raises NotFound.
    """
    async with database.write() as connection:
        row = await _lock_own(connection, user_id, session_id)
        cut = await _cut_unfinished(connection, session_id, text_so_far, now)
        await connection.execute(
            update(chat_sessions)
            .where(chat_sessions.c.id == session_id)
            .values(
                log_begun=True,
                updated_at=now,
                deleted_at=now,
                purge_at=purge_at,
                revision=NEXT_REVISION,
            )
        )
        # As after a deletion for good: what is gone has no title.
        gone = replace(session_from(row), title="", updated_at=timestamp(now))
        deleted = SessionDeleted(gone, *cut)
        await add_events(connection, events(deleted))
        return deleted


async def restore_session(
    database: Database, *, user_id: str, session_id: str, now: datetime, events: EventsOf[Session]
) -> Session:
    """Take a deletion back. Raises NotFound where there is none, or none that waits any more."""
    async with database.write() as connection:
        row = await lock_session(connection, session_id)
        if row is None or row.user_id != user_id or not _is_restorable(row, now):
            raise NotFound("This conversation can no longer be restored")
        await connection.execute(
            update(chat_sessions)
            .where(chat_sessions.c.id == session_id)
            .values(updated_at=now, deleted_at=None, purge_at=None, revision=NEXT_REVISION)
        )
        restored = session_from(await _lock_own(connection, user_id, session_id))
        await add_events(connection, events(restored))
        return restored


async def restorable_session(
    database: Database, *, user_id: str, session_id: str, now: datetime
) -> Session | None:
    """Read a session of the user's that was deleted and may still be restored."""
    async with database.read() as connection:
        row = await _read(connection, session_id)
    if row is None or row.user_id != user_id or not _is_restorable(row, now):
        return None
    return session_from(row)


async def purge_due(database: Database, *, now: datetime, limit: int) -> list[str]:
    """Give ids of up to ``limit`` deleted sessions that nobody can restore, with traces left."""
    async with database.read() as connection:
        found = await connection.execute(
            select(chat_sessions.c.id)
            .where(UNPURGED, chat_sessions.c.purge_at <= now)
            .order_by(chat_sessions.c.purge_at)
            .limit(limit)
        )
        return list(found.scalars())


async def purge_session(database: Database, *, session_id: str, now: datetime) -> bool:
    """Remove what a deleted session has kept; False where it was restored or purged meanwhile.

    From then on nobody can restore it. It stays due until ``forget_session``.
    """
    async with database.write() as connection:
        row = await lock_session(connection, session_id)
        if row is None or row.purge_at is None or row.purge_at > now:
            return False
        await connection.execute(delete(messages).where(messages.c.session_id == session_id))
        await connection.execute(
            update(chat_sessions)
            .where(chat_sessions.c.id == session_id)
            .values(title="", purge_at=AT_ONCE, revision=NEXT_REVISION)
        )
        await redact_events(connection, session_id)
        return True


async def forget_session(database: Database, *, session_id: str) -> None:
    """Note that nothing is left of a purged session, in Redis neither."""
    async with database.write() as connection:
        await connection.execute(
            update(chat_sessions)
            .where(chat_sessions.c.id == session_id, chat_sessions.c.purge_at == AT_ONCE)
            .values(purge_at=None)
        )


async def idle_sessions(
    database: Database, *, before: datetime, limit: int
) -> list[tuple[str, str]]:
    """Give up to ``limit`` sessions without activity since ``before``, as (owner, session)."""
    async with database.read() as connection:
        found = await connection.execute(
            select(chat_sessions.c.user_id, chat_sessions.c.id)
            .where(KEPT, chat_sessions.c.updated_at < before)
            .order_by(chat_sessions.c.updated_at)
            .limit(limit)
        )
        return [(row.user_id, row.id) for row in found]


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


async def _cut_unfinished(
    connection: AsyncConnection, session_id: str, text_so_far: TextSoFar | None, now: datetime
) -> tuple[str | None, Message | None, str | None]:
    """Give the answer's id, the answer as it is now, and its question's id."""
    found = await connection.execute(
        select_messages().where(messages.c.session_id == session_id, UNFINISHED)
    )
    answer = found.one_or_none()
    if answer is None:
        return None, None, None
    content, reasoning = answer.content, answer.reasoning
    if text_so_far is not None and text_so_far.message_id == answer.id:
        content, reasoning = text_so_far.text, text_so_far.reasoning
    await connection.execute(
        update(messages)
        .where(messages.c.id == answer.id)
        .values(
            status=Status.CANCELLED.value,
            content=content,
            reasoning=reasoning,
            stop_requested_at=now,
            updated_at=now,
            completed_at=now,
        )
    )
    # A worker that comes late finds a final state, and changes nothing.
    cut = await connection.execute(select_messages().where(messages.c.id == answer.id))
    return answer.id, message_from(cut.one()), answer.parent_id


def _is_restorable(row: AnyRow, now: datetime) -> bool:
    return row.deleted_at is not None and row.purge_at is not None and row.purge_at > now


async def _read(connection: AsyncConnection, session_id: str) -> AnyRow | None:
    found = await connection.execute(select_sessions().where(chat_sessions.c.id == session_id))
    return found.one_or_none()


async def _lock_own(connection: AsyncConnection, user_id: str, session_id: str) -> AnyRow:
    row = await lock_session(connection, session_id)
    if row is None or row.user_id != user_id or row.deleted_at is not None:
        raise NotFound
    return row
