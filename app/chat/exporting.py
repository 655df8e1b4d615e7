"""Giving a user all that is theirs, as lines of JSON (NDJSON), format 1.

The first line is about the account, the last one says how much there was: a file without it is not
whole. Between them each session is followed by its messages, oldest first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from app.db import accounts, export
from app.domain.messages import timestamp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from app.db.engine import Database
    from app.domain.caller import Caller
    from app.domain.messages import Message

FORMAT: Final = 1
"""Lines of other types and further fields may be added under the same number."""

_SESSIONS: Final = 100
_MESSAGES: Final = 50


class AccountLine(msgspec.Struct, frozen=True):
    """Whose export this is, and of which form."""

    format: int
    user_id: str
    name: str | None
    created_at: str | None
    """None for who has a token of another issuer and never asked anything."""
    exported_at: str


class EndLine(msgspec.Struct, frozen=True):
    """That the export is whole."""

    sessions: int
    messages: int


class Exporting:
    """Reads what is exported, in pages of bounded size."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        """Take where it is, and the clock."""
        self._database = database
        self._clock = clock

    async def lines(self, caller: Caller) -> AsyncIterator[bytes]:
        """Give whole lines, some at a time; no connection is held between two of these.

        Deleted sessions are left out. An unfinished answer is as the database has it, its
        ``status`` says so. Raises Unavailable.
        """
        account = await accounts.account_by_id(self._database, user_id=caller.user_id)
        yield _line(
            "account",
            AccountLine(
                format=FORMAT,
                user_id=caller.user_id,
                name=caller.name if account is None else account.name,
                created_at=None if account is None else timestamp(account.created_at),
                exported_at=timestamp(self._clock()),
            ),
        )
        sessions = messages = 0
        after = ""
        while page := await export.sessions_after(
            self._database, user_id=caller.user_id, after=after, limit=_SESSIONS
        ):
            for session in page:
                sessions += 1
                yield _line("session", session)
                async for some in self._messages(caller.user_id, session.session_id):
                    messages += len(some)
                    yield b"".join([_line("message", message) for message in some])
            after = page[-1].session_id
        yield _line("end", EndLine(sessions=sessions, messages=messages))

    async def _messages(self, user_id: str, session_id: str) -> AsyncIterator[list[Message]]:
        after: int | None = -1
        while after is not None:
            page = await export.messages_after(
                self._database,
                user_id=user_id,
                session_id=session_id,
                after=after,
                limit=_MESSAGES,
            )
            if page.items:
                yield page.items
            after = page.after


_encode: Final = msgspec.json.Encoder().encode


def _line(kind: str, what: msgspec.Struct) -> bytes:
    """Give an object, one of the contract's as it is there, with what it is before it."""
    return b'{"type":"%s",%s\n' % (kind.encode(), _encode(what)[1:])
