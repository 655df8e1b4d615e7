"""Accounts: users who may sign in, their passwords and what lets somebody become one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.locking import insert_if_absent
from app.db.rows import AnyRow
from app.db.tables import invitations, sign_in_links, sign_ins, users


class Account(NamedTuple):
    """A user as sign-in sees it."""

    user_id: str
    name: str | None
    created_at: datetime
    disabled_at: datetime | None
    is_admin: bool
    password_hash: str | None

    def __repr__(self) -> str:
        """Name the account; a hash is nothing for a log."""
        return f"Account({self.user_id!r}, {self.name!r})"


_COLUMNS: Final = (
    users.c.id,
    users.c.name,
    users.c.created_at,
    users.c.disabled_at,
    users.c.is_admin,
    users.c.password_hash,
)


async def account_by_name(database: Database, *, name: str) -> Account | None:
    async with database.read() as connection:
        return await _find(connection, users.c.name == name)


async def account_by_id(database: Database, *, user_id: str) -> Account | None:
    async with database.read() as connection:
        return await _find(connection, users.c.id == user_id)


async def accounts(database: Database) -> list[Account]:
    """Give everybody who has a name, by name."""
    async with database.read() as connection:
        found = await connection.execute(
            select(*_COLUMNS).where(users.c.name.is_not(None)).order_by(users.c.name)
        )
        return [_account(row) for row in found]


async def add_account(
    database: Database,
    *,
    user_id: str,
    name: str,
    password_hash: str | None,
    is_admin: bool,
    now: datetime,
    invitation: str | None = None,
) -> bool:
    """Make an account; give False where the name is taken, in any mix of capitals.

    With ``invitation``, the digest of a code, that is used up in the same transaction. Raises
    LookupError where it is not there, was used before, or has expired.
    """
    row: dict[str, Any] = {
        "id": user_id,
        "name": name,
        "password_hash": password_hash,
        "is_admin": is_admin,
        "created_at": now,
    }
    async with database.write() as connection:
        # A look-alike is refused on a best effort; what is equal, by the table's own key.
        alike = await _find(connection, func.lower(users.c.name) == name.lower())
        if alike is not None or not await insert_if_absent(connection, users, row):
            return False
        if invitation is not None:
            used = await connection.execute(
                update(invitations)
                .where(
                    invitations.c.digest == invitation,
                    invitations.c.used_at.is_(None),
                    invitations.c.expires_at > now,
                )
                .values(used_by=user_id, used_at=now)
            )
            if used.rowcount != 1:
                raise LookupError("there is no such invitation")
    return True


async def set_password(
    database: Database, *, user_id: str, password_hash: str, expected: str | None
) -> bool:
    """Replace a password's hash; give False where it is no longer the ``expected`` one."""
    async with database.write() as connection:
        changed = await connection.execute(
            update(users)
            .where(users.c.id == user_id, users.c.password_hash.is_not_distinct_from(expected))
            .values(password_hash=password_hash)
        )
        return changed.rowcount == 1


async def make_admin(database: Database, *, user_id: str) -> None:
    async with database.write() as connection:
        await connection.execute(update(users).where(users.c.id == user_id).values(is_admin=True))


async def disable(database: Database, *, user_id: str, now: datetime) -> list[str]:
    """Shut an account and end its sign-ins; give the ids of those that had not ended."""
    async with database.write() as connection:
        await connection.execute(
            update(users)
            .where(users.c.id == user_id, users.c.disabled_at.is_(None))
            .values(disabled_at=now)
        )
        return await _end_all(connection, user_id, now)


async def add_invitation(
    database: Database,
    *,
    digest: str,
    created_by: str | None,
    now: datetime,
    expires_at: datetime,
) -> None:
    async with database.write() as connection:
        await connection.execute(
            insert(invitations),
            {
                "digest": digest,
                "created_by": created_by,
                "created_at": now,
                "expires_at": expires_at,
            },
        )


async def is_invited(database: Database, *, digest: str, now: datetime) -> bool:
    """Say whether an invitation can be used still."""
    async with database.read() as connection:
        found = await connection.execute(
            select(invitations.c.digest).where(
                invitations.c.digest == digest,
                invitations.c.used_at.is_(None),
                invitations.c.expires_at > now,
            )
        )
        return found.one_or_none() is not None


async def add_link(
    database: Database, *, digest: str, user_id: str, now: datetime, expires_at: datetime
) -> None:
    """Keep a link that signs its user in once."""
    async with database.write() as connection:
        await connection.execute(
            insert(sign_in_links),
            {
                "digest": digest,
                "user_id": user_id,
                "created_at": now,
                "expires_at": expires_at,
            },
        )


async def use_link(database: Database, *, digest: str, now: datetime) -> Account | None:
    """Use a link up and give whom it signs in; None where it is used, expired or unknown."""
    async with database.write() as connection:
        used = await connection.execute(
            update(sign_in_links)
            .where(
                sign_in_links.c.digest == digest,
                sign_in_links.c.used_at.is_(None),
                sign_in_links.c.expires_at > now,
            )
            .values(used_at=now)
            .returning(sign_in_links.c.user_id)
        )
        user_id = used.scalar_one_or_none()
        return None if user_id is None else await _find(connection, users.c.id == user_id)


async def _end_all(
    connection: AsyncConnection, user_id: str, now: datetime, *, but: str | None = None
) -> list[str]:
    which = [sign_ins.c.user_id == user_id, sign_ins.c.ended_at.is_(None)]
    if but is not None:
        which.append(sign_ins.c.id != but)
    ended = await connection.execute(
        update(sign_ins).where(*which).values(ended_at=now).returning(sign_ins.c.id)
    )
    return list(ended.scalars())


async def end_sign_ins(
    database: Database, *, user_id: str, now: datetime, but: str | None = None
) -> Sequence[str]:
    """End a user's sign-ins, all ``but`` one; give the ids of those that had not ended."""
    async with database.write() as connection:
        return await _end_all(connection, user_id, now, but=but)


async def _find(connection: AsyncConnection, which: ColumnElement[bool]) -> Account | None:
    row = (await connection.execute(select(*_COLUMNS).where(which).limit(1))).one_or_none()
    return None if row is None else _account(row)


def _account(row: AnyRow) -> Account:
    return Account(*row)
