"""The tables, as queries see them; ``migrations`` is how a database gets them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Named,
    String,
    Table,
    Text,
    TypedColumns,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.types import TypeEngine

UNFINISHED: Final = text("status IN ('queued', 'streaming')")
"""The condition of the partial indexes. Queries repeat it word for word: with the statuses as
parameters a planner cannot know that the index applies."""

UNPUBLISHED: Final = text("published_at IS NULL")
"""The condition of the outbox's partial index."""

UNPURGED: Final = text("purge_at IS NOT NULL")
"""The condition of the index of deleted sessions of which something may be left: content that can
be restored still, or what Redis has."""

KEPT: Final = text("deleted_at IS NULL")
"""The condition of the index of sessions that may be left alone for too long."""

ERASING: Final = text("erasing_since IS NOT NULL")
"""The condition of the index of accounts whose erasure has begun and is not over."""


def _written(moment: datetime) -> str:
    """Write a moment of UTC as ``2026-01-31T09:05:00.123456Z``."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class UtcTime(TypeDecorator[datetime]):
    """A moment with its zone, exact to the microsecond, on every engine.

    SQLite has no type for it and would keep the digits without the zone; there it is text of fixed
    width, whose alphabetical order is the order of time.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(27))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone cannot be stored")
        moment = value.astimezone(UTC)
        return _written(moment) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if dialect.name == "sqlite":
            return datetime.fromisoformat(value)
        stored: datetime = value
        return stored.astimezone(UTC)


metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class _Users(TypedColumns):
    id: Named[str] = Column(String(255), primary_key=True)
    name: Named[str | None] = Column(String(255), unique=True)
    created_at: Named[datetime] = Column(UtcTime)
    disabled_at: Named[datetime | None] = Column(UtcTime)
    password_hash: Named[str | None] = Column(String(255))
    is_admin: Named[bool] = Column(Boolean, server_default=false())
    erasing_since: Named[datetime | None] = Column(UtcTime)


class _SignIns(TypedColumns):
    id: Named[str] = Column(String(36), primary_key=True)
    user_id: Named[str] = Column(String(255), ForeignKey("users.id"), index=True)
    created_at: Named[datetime] = Column(UtcTime)
    last_used_at: Named[datetime] = Column(UtcTime)
    expires_at: Named[datetime] = Column(UtcTime)
    ended_at: Named[datetime | None] = Column(UtcTime)


class _Invitations(TypedColumns):
    digest: Named[str] = Column(String(64), primary_key=True)
    created_by: Named[str | None] = Column(String(255), ForeignKey("users.id"))
    created_at: Named[datetime] = Column(UtcTime)
    expires_at: Named[datetime] = Column(UtcTime)
    used_by: Named[str | None] = Column(String(255), ForeignKey("users.id"))
    used_at: Named[datetime | None] = Column(UtcTime)


class _SignInLinks(TypedColumns):
    digest: Named[str] = Column(String(64), primary_key=True)
    user_id: Named[str] = Column(String(255), ForeignKey("users.id"))
    created_at: Named[datetime] = Column(UtcTime)
    expires_at: Named[datetime] = Column(UtcTime)
    used_at: Named[datetime | None] = Column(UtcTime)


class _ChatSessions(TypedColumns):
    id: Named[str] = Column(String(64), primary_key=True)
    user_id: Named[str] = Column(String(255), ForeignKey("users.id"))
    title: Named[str] = Column(String(255))
    log_begun: Named[bool] = Column(Boolean)
    created_at: Named[datetime] = Column(UtcTime)
    updated_at: Named[datetime] = Column(UtcTime)
    deleted_at: Named[datetime | None] = Column(UtcTime)
    purge_at: Named[datetime | None] = Column(UtcTime)
    revision: Named[int] = Column(Integer, server_default="0")


class _Messages(TypedColumns):
    id: Named[str] = Column(String(36), primary_key=True)
    session_id: Named[str] = Column(String(64), ForeignKey("chat_sessions.id"))
    ordinal: Named[int] = Column(Integer)
    role: Named[str] = Column(String(16))
    content: Named[str] = Column(Text)
    reasoning: Named[str | None] = Column(Text)
    status: Named[str] = Column(String(16))
    attempt: Named[int] = Column(Integer)
    lost_attempts: Named[int] = Column(Integer)
    model: Named[str | None] = Column(String(255))
    client_message_id: Named[str | None] = Column(String(128))
    parent_id: Named[str | None] = Column(String(36), ForeignKey("messages.id"))
    created_at: Named[datetime] = Column(UtcTime)
    updated_at: Named[datetime] = Column(UtcTime)
    completed_at: Named[datetime | None] = Column(UtcTime)
    stop_requested_at: Named[datetime | None] = Column(UtcTime)
    error_code: Named[str | None] = Column(String(64))
    error_detail: Named[str | None] = Column(Text)
    prompt_tokens: Named[int | None] = Column(Integer)
    completion_tokens: Named[int | None] = Column(Integer)


class _Outbox(TypedColumns):
    sequence: Named[int] = Column(
        # SQLite counts up INTEGER keys only.
        BigInteger().with_variant(Integer, "sqlite"),
        Identity(),
        primary_key=True,
    )
    event_id: Named[str] = Column(String(36), unique=True)
    topic: Named[str] = Column(String(64))
    key: Named[str] = Column(String(255))
    event_type: Named[str] = Column(String(64))
    payload: Named[bytes] = Column(LargeBinary)
    created_at: Named[datetime] = Column(UtcTime)
    published_at: Named[datetime | None] = Column(UtcTime)


users: Final = Table(
    "users",
    metadata,
    _Users,
    Index(
        "ix_users_erasing_erasing_since",
        "erasing_since",
        sqlite_where=ERASING,
        postgresql_where=ERASING,
    ),
)

sign_ins: Final = Table("sign_ins", metadata, _SignIns)

# Codes are kept by their digest alone: who reads the database cannot use one.
invitations: Final = Table("invitations", metadata, _Invitations)
sign_in_links: Final = Table("sign_in_links", metadata, _SignInLinks)

chat_sessions: Final = Table(
    "chat_sessions",
    metadata,
    _ChatSessions,
    # A user's sessions, newest activity first, without sorting.
    Index(None, "user_id", "updated_at", "id"),
    Index(
        "ix_chat_sessions_unpurged_purge_at",
        "purge_at",
        sqlite_where=UNPURGED,
        postgresql_where=UNPURGED,
    ),
    # Whose last activity is longest ago, whosever it is.
    Index(
        "ix_chat_sessions_kept_updated_at",
        "updated_at",
        sqlite_where=KEPT,
        postgresql_where=KEPT,
    ),
)

messages: Final = Table(
    "messages",
    metadata,
    _Messages,
    UniqueConstraint("session_id", "ordinal"),
    UniqueConstraint("session_id", "client_message_id"),
    # Never two answers at once, whatever the code above believes.
    Index(
        "uq_messages_unfinished_session",
        "session_id",
        unique=True,
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    ),
    # What the reconciler looks through: as small as the number of running answers.
    Index(
        "ix_messages_unfinished_id",
        "id",
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    ),
    # The answer to a question, and the foreign key's own check.
    Index(None, "parent_id"),
)

NEXT_REVISION: Final = chat_sessions.c.revision + 1
"""Set by every transaction that changes what a session holds, unless all that it changes is an
unfinished answer. A copy of a settled session is found by this number (``history_cache``)."""

outbox: Final = Table(
    "outbox",
    metadata,
    _Outbox,
    # What waits for publication, in order; the published past costs it nothing.
    Index(
        "ix_outbox_unpublished_sequence",
        "sequence",
        sqlite_where=UNPUBLISHED,
        postgresql_where=UNPUBLISHED,
    ),
    # All that was said of one session, to take its content out.
    Index("ix_outbox_key", "key", "sequence"),
    # A sequence number is never given twice, not even after the newest row was cleaned away.
    sqlite_autoincrement=True,
)
