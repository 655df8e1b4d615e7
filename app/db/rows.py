"""From rows to the domain's values."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import Row, Select, select

from app.db.tables import chat_sessions, messages
from app.domain.messages import AnswerError, Message, Role, Session, Status, Usage, timestamp

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row with the columns of one table, read by name."""


def select_messages() -> Select[*tuple[Any, ...]]:
    """Select what ``message_from`` reads, and what decides over an answer."""
    return select(messages)


def message_from(row: AnyRow) -> Message:
    status = Status(row.status)
    error = usage = None
    if row.error_code is not None:
        error = AnswerError(code=row.error_code, detail=row.error_detail or "")
    if row.prompt_tokens is not None and row.completion_tokens is not None:
        usage = Usage(prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens)
    return Message(
        message_id=row.id,
        session_id=row.session_id,
        role=Role(row.role),
        content=row.content,
        status=status,
        is_complete=status.is_final,
        attempt=row.attempt,
        model=row.model,
        created_at=timestamp(row.created_at),
        completed_at=None if row.completed_at is None else timestamp(row.completed_at),
        error=error,
        usage=usage,
        reasoning=row.reasoning,
    )


def select_sessions() -> Select[*tuple[Any, ...]]:
    """Select what ``session_from`` reads, and the owner, the tombstone and the log's state."""
    return select(chat_sessions)


def session_from(row: AnyRow) -> Session:
    return Session(
        session_id=row.id,
        title=row.title,
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
    )
