"""Who owns sessions: known here, or to another issuer of tokens whose word is taken."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.locking import insert_if_absent
from app.db.results import User
from app.db.tables import users
from app.domain.errors import Forbidden


async def ensure_user(database: Database, *, user_id: str, name: str | None, now: datetime) -> None:
    """Make sure that the user exists; one indexed read where it does.

    A name that somebody else has already is left out: the id is what counts. Raises Forbidden for
    an account that was shut or erased, whatever a token of another issuer says.
    """
    async with database.read() as connection:
        found = await _find(connection, users.c.id == user_id)
    if found is not None:
        if found.disabled_at is not None:
            raise Forbidden("This account was shut")
        return
    row = {"id": user_id, "name": name, "created_at": now}
    async with database.write() as connection:
        # Either the id or the name may be there: a concurrent first request, or another user.
        if await insert_if_absent(connection, users, row):
            return
        await insert_if_absent(connection, users, row | {"name": None})


async def user_by_name(database: Database, *, name: str) -> User | None:
    async with database.read() as connection:
        return await _find(connection, users.c.name == name)


async def create_user(database: Database, *, user_id: str, name: str, now: datetime) -> User:
    """Give the user of that name, who gets ``user_id`` where there is none yet.

    Raises ValueError where the id belongs to a user of another name.
    """
    async with database.write() as connection:
        row = {"id": user_id, "name": name, "created_at": now}
        await insert_if_absent(connection, users, row)
        user = await _find(connection, users.c.name == name)
    if user is None:
        raise ValueError(f"the user id {user_id} belongs to another name")
    return user


async def _find(connection: AsyncConnection, which: ColumnElement[bool]) -> User | None:
    found = await connection.execute(
        select(users.c.id, users.c.name, users.c.created_at, users.c.disabled_at).where(which)
    )
    row = found.one_or_none()
    return None if row is None else User(*row)
