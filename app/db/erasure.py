"""Erasing an account: recorded first, then done session by session, then over.

The row of the user stays, without a name, a password or a role: what belongs to nobody any more
still refers to it, and whoever comes with a token of that user finds the account shut.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, exists, or_, select, update

from app.db.engine import Database
from app.db.sessions import AT_ONCE
from app.db.tables import ERASING, UNPURGED, chat_sessions, sign_in_links, sign_ins, users


async def begin_erasure(
    database: Database, *, user_id: str, now: datetime, password_hash: str | None = None
) -> bool:
    """Shut an account for good, and take away what names its owner.

    From this commit on the erasure takes place, whoever dies. False, and nothing changed, where it
    was begun before, where there is no such user, or where the password is no longer the one of
    ``password_hash``, which takes a while to check.
    """
    async with database.write() as connection:
        begun = await connection.execute(
            update(users)
            .where(
                users.c.id == user_id,
                users.c.erasing_since.is_(None),
                users.c.password_hash.is_not_distinct_from(password_hash),
            )
            .values(
                name=None,
                password_hash=None,
                is_admin=False,
                disabled_at=now,
                erasing_since=now,
            )
        )
        if begun.rowcount != 1:
            return False
        await connection.execute(
            update(sign_ins)
            .where(sign_ins.c.user_id == user_id, sign_ins.c.ended_at.is_(None))
            .values(ended_at=now)
        )
        await connection.execute(delete(sign_in_links).where(sign_in_links.c.user_id == user_id))
        # What was put away cannot be restored any more: nobody could ask for it.
        await connection.execute(
            update(chat_sessions)
            .where(chat_sessions.c.user_id == user_id, UNPURGED)
            .values(purge_at=AT_ONCE)
        )
        return True


async def being_erased(database: Database, *, limit: int) -> list[tuple[str, datetime]]:
    """Give up to ``limit`` users whose erasure is not over, and since when it is under way."""
    async with database.read() as connection:
        found = await connection.execute(
            select(users.c.id, users.c.erasing_since)
            .where(ERASING)
            .order_by(users.c.erasing_since)
            .limit(limit)
        )
        return [(row.id, row.erasing_since) for row in found]


async def sessions_left(database: Database, *, user_id: str, limit: int) -> list[str]:
    """Give ids of up to ``limit`` of a user's sessions that are not deleted, the newest first.

    So that answers which are being written are stopped before all else.
    """
    async with database.read() as connection:
        found = await connection.execute(
            select(chat_sessions.c.id)
            .where(chat_sessions.c.user_id == user_id, chat_sessions.c.deleted_at.is_(None))
            .order_by(chat_sessions.c.updated_at.desc(), chat_sessions.c.id.desc())
            .limit(limit)
        )
        return list(found.scalars())


async def end_erasure(database: Database, *, user_id: str) -> bool:
    """Note that nothing is left of an account; False where something is."""
    left = exists().where(
        chat_sessions.c.user_id == user_id,
        or_(chat_sessions.c.deleted_at.is_(None), chat_sessions.c.purge_at.is_not(None)),
    )
    async with database.write() as connection:
        ended = await connection.execute(
            update(users)
            .where(users.c.id == user_id, users.c.erasing_since.is_not(None), ~left)
            .values(erasing_since=None)
        )
        return ended.rowcount == 1
