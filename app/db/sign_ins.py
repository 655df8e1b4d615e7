"""Sign-ins: the durable truth about who is signed in, which every cookie's token comes back to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import insert, select, update

from app.db.engine import Database
from app.db.outbox import add_events
from app.db.tables import sign_ins, users
from app.domain.outbox import OutboxEvent


class LiveSignIn(NamedTuple):
    """A sign-in that has neither ended nor expired, of a user who is not disabled."""

    sign_in_id: str
    user_id: str
    name: str | None
    is_admin: bool
    expires_at: datetime


async def begin_sign_in(
    database: Database,
    *,
    sign_in_id: str,
    user_id: str,
    now: datetime,
    expires_at: datetime,
    password_hash: str | None,
    events: Sequence[OutboxEvent],
) -> bool:
    """Sign a user in, with the events that tell of it.

    Give False, and change nothing, where the user was disabled or the password is no longer the
    one of ``password_hash``, which takes a while to check.
    """
    async with database.write() as connection:
        found = await connection.execute(
            select(users.c.id)
            .where(
                users.c.id == user_id,
                users.c.disabled_at.is_(None),
                users.c.password_hash.is_not_distinct_from(password_hash),
            )
            .with_for_update(read=True)
        )
        if found.one_or_none() is None:
            return False
        await connection.execute(
            insert(sign_ins),
            {
                "id": sign_in_id,
                "user_id": user_id,
                "created_at": now,
                "last_used_at": now,
                "expires_at": expires_at,
            },
        )
        await add_events(connection, events)
        return True


async def use_sign_in(
    database: Database, *, sign_in_id: str, now: datetime, expires_at: datetime
) -> LiveSignIn | None:
    """Keep a sign-in alive until ``expires_at``; None where it ended, expired or is nobody's."""
    async with database.write() as connection:
        used = await connection.execute(
            update(sign_ins)
            .where(
                sign_ins.c.id == sign_in_id,
                sign_ins.c.ended_at.is_(None),
                sign_ins.c.expires_at > now,
                sign_ins.c.user_id.in_(select(users.c.id).where(users.c.disabled_at.is_(None))),
            )
            .values(last_used_at=now, expires_at=expires_at)
            .returning(sign_ins.c.user_id)
        )
        user_id = used.scalar_one_or_none()
        if user_id is None:
            return None
        user = (
            await connection.execute(
                select(users.c.name, users.c.is_admin).where(users.c.id == user_id)
            )
        ).one()
        return LiveSignIn(sign_in_id, user_id, user.name, user.is_admin, expires_at)


async def end_sign_in(database: Database, *, sign_in_id: str, user_id: str, now: datetime) -> bool:
    """End one of the user's sign-ins; give whether it had not ended."""
    async with database.write() as connection:
        ended = await connection.execute(
            update(sign_ins)
            .where(
                sign_ins.c.id == sign_in_id,
                sign_ins.c.user_id == user_id,
                sign_ins.c.ended_at.is_(None),
            )
            .values(ended_at=now)
        )
        return ended.rowcount == 1


async def count_sign_ins(database: Database, *, user_id: str, now: datetime) -> int:
    """Count a user's sign-ins that have neither ended nor expired."""
    async with database.read() as connection:
        found = await connection.execute(
            select(sign_ins.c.id).where(
                sign_ins.c.user_id == user_id,
                sign_ins.c.ended_at.is_(None),
                sign_ins.c.expires_at > now,
            )
        )
        return len(found.all())
