"""``throughline user …`` and ``throughline token``: accounts from the command line.

They work on the database alone. What is open in a name that was shut ends through Redis, where that
answers; else within half the life of a cookie's token.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, TextIO

import uuid_utils

from app.accounts.accounts import Accounts, roles_of
from app.accounts.erasure import AccountErasure
from app.accounts.tokens import TokenIssuer
from app.db import accounts as stored
from app.db import users
from app.db.accounts import Account
from app.db.engine import Database
from app.domain.caller import DEVELOPMENT_USER
from app.domain.errors import Forbidden, ValidationFailed

_LINE_MAX_CHARACTERS: Final = 1024


def password_from(stream: TextIO) -> str:
    """Read a password as the first line of what is piped in."""
    written = stream.readline(_LINE_MAX_CHARACTERS).rstrip("\r\n")
    if not written:
        raise ValidationFailed("there is no password on stdin")
    return written


def password_typed() -> str:
    """Ask for a password twice, on a terminal, without showing it."""
    if not sys.stdin.isatty():
        raise ValidationFailed(
            "there is no terminal to ask for a password; use --password-stdin or --no-password"
        )
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("The same again: "):
        raise ValidationFailed("the password was not written the same way twice")
    return first


async def create(accounts: Accounts, *, name: str, password: str | None, is_admin: bool) -> str:
    """Make an account; give the line that says so."""
    account = await accounts.create(name=name, password=password, is_admin=is_admin)
    can = "who can sign in" if password is not None else "who has no password"
    return f"made {account.name}{', an administrator,' if is_admin else ','} {can}"


async def disable(accounts: Accounts, *, name: str) -> str:
    """Shut an account; give the line that says so."""
    await accounts.disable(name=name)
    return f"{name} is disabled: every sign-in and every token has ended"


async def delete(erasure: AccountErasure, *, name: str) -> str:
    """Shut an account for good; give the line that says so."""
    await erasure.begin_named(name=name)
    return f"{name} is deleted: the workers remove what was said, a few seconds from now"


async def listed(accounts: Accounts) -> Sequence[str]:
    """Give one line for each account."""
    return [_line(account) for account in await accounts.everybody()] or ["there is no account yet"]


async def invite(accounts: Accounts, *, origin: str) -> str:
    """Give a link that lets one person sign up."""
    return f"{origin}/sign-up?invitation={await accounts.invite()}"


async def token(
    database: Database, issuer: TokenIssuer, *, name: str, as_admin: bool, ttl_seconds: int
) -> str:
    """Give a token for a user, who is made where missing; raise Forbidden for a disabled one."""
    new_id = DEVELOPMENT_USER if name == DEVELOPMENT_USER else str(uuid_utils.uuid7())
    await users.create_user(database, user_id=new_id, name=name, now=datetime.now(UTC))
    account = await stored.account_by_name(database, name=name)
    if account is None or account.disabled_at is not None:
        raise Forbidden(f"the user {name} is disabled")
    return issuer.issue(
        user_id=account.user_id,
        name=name,
        roles=roles_of(is_admin=as_admin or account.is_admin),
        sign_in_id=None,
        ttl_seconds=ttl_seconds,
    )


def _line(account: Account) -> str:
    what = [f"since {account.created_at:%Y-%m-%d}"]
    if account.is_admin:
        what.append("administrator")
    if account.password_hash is None:
        what.append("no password")
    if account.disabled_at is not None:
        what.append(f"disabled {account.disabled_at:%Y-%m-%d}")
    return f"{account.name}  {', '.join(what)}"
