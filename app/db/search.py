"""Finding a user's sessions by what their titles and messages have in them.

What is looked for is compared without regard to case, in every script, and without wildcards. A
search reads through what the user has, newest activity first, until it has enough.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    collate,
    false,
    func,
    literal,
    null,
    select,
    text,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import chat_sessions, messages

_BEFORE: Final = 60
"""Characters of a message that are shown before what was found in it."""
_EXCERPT: Final = 160
_BY_UNICODE: Final = ("und-x-icu", "pg_unicode_fast", "pg_c_utf8")
"""Collations of PostgreSQL that know the case of all letters, whatever the database was made
with; which of them there are depends on how the server was built, and on its version."""

_Text = ColumnElement[str]


class Hit(NamedTuple):
    """A title, or a message, that has what was looked for in it."""

    session_id: str
    title: str
    message_id: str | None
    """None for a title."""
    said_at: datetime
    """When the message was written, or the session was last active."""
    excerpt: str
    """The part of the message where it was found; empty for a title."""
    begins_within: bool
    """Whether the message has text before the excerpt."""
    ends_within: bool
    """Whether the message has text after the excerpt."""


async def search(database: Database, *, user_id: str, wanted: str, limit: int) -> list[Hit]:
    """Find up to ``limit`` titles and messages, newest first."""
    async with database.read() as connection:
        folds = await _Folding.of(connection)
        # The outer sort has to see every row before it gives the first. On SQLite all the work is
        # therefore done by the statement itself, which goes to a thread because it does not
        # begin with SELECT (``sqlite._QUICK``), and not by fetching from it on the event loop.
        found = union_all(
            select(_titles(folds, user_id, wanted, limit).subquery()),
            select(_messages(folds, user_id, wanted, limit).subquery()),
        ).cte("found")
        rows = await connection.execute(
            select(found).order_by(found.c.said_at.desc(), found.c.session_id).limit(limit)
        )
        return [Hit(*row) for row in rows]


class _Folding:
    """How this database takes the case out of a text."""

    def __init__(self, dialect: str, collation: str | None) -> None:
        self._dialect = dialect
        self._collation = collation

    @classmethod
    async def of(cls, connection: AsyncConnection) -> _Folding:
        dialect = connection.dialect.name
        if dialect == "sqlite":
            return cls(dialect, None)
        found = await connection.execute(
            text(
                "SELECT collname FROM pg_collation WHERE collname = ANY(:names) AND collencoding"
                " IN (-1, pg_char_to_encoding(getdatabaseencoding()))"
            ),
            {"names": list(_BY_UNICODE)},
        )
        there = set(found.scalars())
        return cls(dialect, next((name for name in _BY_UNICODE if name in there), None))

    def position(self, column: _Text, wanted: str) -> ColumnElement[int]:
        """Count from 1 to where ``wanted`` is; 0 where it is not."""
        if self._dialect == "sqlite":
            return func.instr(func.folded(column), wanted.casefold(), type_=Integer)
        return func.strpos(self._lower(column), self._lower(literal(wanted)), type_=Integer)

    def larger(self, one: ColumnElement[int], other: int) -> ColumnElement[int]:
        """Give the larger of two numbers."""
        name = func.max if self._dialect == "sqlite" else func.greatest
        return name(one, other, type_=Integer)

    def _lower(self, value: _Text) -> ColumnElement[Any]:
        return func.lower(collate(value, self._collation) if self._collation else value)


def _titles(folds: _Folding, user_id: str, wanted: str, limit: int) -> Select[Any]:
    nothing: ColumnElement[Any] = null()
    return (
        select(
            chat_sessions.c.id.label("session_id"),
            chat_sessions.c.title,
            nothing.label("message_id"),
            chat_sessions.c.updated_at.label("said_at"),
            literal("").label("excerpt"),
            false().label("begins_within"),
            false().label("ends_within"),
        )
        .where(
            chat_sessions.c.user_id == user_id,
            chat_sessions.c.deleted_at.is_(None),
            folds.position(chat_sessions.c.title, wanted) > 0,
        )
        .order_by(chat_sessions.c.updated_at.desc(), chat_sessions.c.id.desc())
        .limit(limit)
    )


def _messages(folds: _Folding, user_id: str, wanted: str, limit: int) -> Select[Any]:
    position = folds.position(messages.c.content, wanted)
    begin = folds.larger(position - _BEFORE, 1)
    return (
        select(
            messages.c.session_id,
            chat_sessions.c.title,
            messages.c.id,
            messages.c.created_at,
            func.substr(messages.c.content, begin, _EXCERPT),
            begin > 1,
            func.length(messages.c.content, type_=Integer) >= begin + _EXCERPT,
        )
        .join(chat_sessions, chat_sessions.c.id == messages.c.session_id)
        .where(
            chat_sessions.c.user_id == user_id,
            chat_sessions.c.deleted_at.is_(None),
            position > 0,
        )
        # Along the index of a user's sessions: it ends as soon as there are enough.
        .order_by(
            chat_sessions.c.updated_at.desc(),
            chat_sessions.c.id.desc(),
            messages.c.ordinal.desc(),
        )
        .limit(limit)
    )
