"""Tickets: for clients that can set neither a header nor a cookie, and must not put a token in an
address. One works once, within ``TICKET_SECONDS``, on whichever node is asked.
"""  # noqa: D205

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import msgspec

from app.domain.caller import Caller
from app.streams import keys
from app.streams.connection import reachable

if TYPE_CHECKING:
    from redis.asyncio import Redis

TICKET_SECONDS: Final = 30

_BYTES: Final = 32
_FORM: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class _Held(msgspec.Struct, frozen=True):
    """Whom a ticket stands for, with all that his own credential can be ended by."""

    user_id: str
    name: str
    roles: list[str]
    expires_at: float | None
    sign_in_id: str | None
    token_id: str | None
    issued_at: float | None


class Tickets:
    """Gives and takes tickets; Redis has their digests, so that who reads it cannot use one."""

    def __init__(self, redis: Redis, *, clock: Callable[[], float] = time.time) -> None:
        """Take the client, and the clock that tokens are made by."""
        self._redis = redis
        self._clock = clock

    async def issue(self, caller: Caller) -> str:
        """Make a ticket for a caller; raise Unavailable without Redis."""
        ticket = secrets.token_urlsafe(_BYTES)
        is_ambient = caller.credential == "development"
        held = _Held(
            user_id=caller.user_id,
            name=caller.name,
            roles=sorted(caller.roles),
            expires_at=caller.expires_at,
            sign_in_id=caller.sign_in_id,
            token_id=caller.token_id,
            issued_at=self._clock() if is_ambient else caller.issued_at,
        )
        with reachable():
            await self._redis.set(_key(ticket), msgspec.json.encode(held), ex=TICKET_SECONDS)
        return ticket

    async def redeem(self, ticket: str) -> Caller | None:
        """Use a ticket up; None for one that was used, has expired, or never was.

        The caller's own credential may have ended meanwhile. Raises Unavailable without Redis.
        """
        if _FORM.fullmatch(ticket) is None:
            return None
        with reachable():
            found = cast("bytes | None", await self._redis.getdel(_key(ticket)))
        if found is None:
            return None
        try:
            held = msgspec.json.decode(found, type=_Held)
        except msgspec.MsgspecError:  # another version's
            return None
        return Caller(
            user_id=held.user_id,
            name=held.name,
            roles=frozenset(held.roles),
            expires_at=held.expires_at,
            sign_in_id=held.sign_in_id,
            token_id=held.token_id,
            credential="ticket",
            issued_at=held.issued_at,
        )


def _key(ticket: str) -> str:
    return keys.ticket(hashlib.sha256(ticket.encode()).hexdigest())
