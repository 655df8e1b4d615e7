"""Accepting a question: the user's message and the queued answer, in one transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from msgspec.structs import replace
from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.locking import insert_if_absent, lock_message, lock_session, read_message
from app.db.outbox import add_events
from app.db.results import Accepted, EventsOf
from app.db.rows import AnyRow, message_from, select_messages, session_from
from app.db.tables import NEXT_REVISION, UNFINISHED, chat_sessions, messages
from app.domain.errors import GenerationInProgress, NotFound, NotRegenerable
from app.domain.messages import Message, Role, Session, Status, timestamp


class _Entered(NamedTuple):
    session: Session
    created: bool
    pristine: bool


class _State(NamedTuple):
    last_ordinal: int | None
    unfinished: str | None
    earlier: str | None
    """The question with the given ``client_message_id``."""


_ADD_MESSAGES: Final = insert(messages)
_CHANGE_SESSION: Final = (
    update(chat_sessions)
    .where(chat_sessions.c.id == bindparam("which"))
    .values(revision=NEXT_REVISION)
)
_AWAITED_AGAIN: Final = (
    update(messages)
    .where(messages.c.id == bindparam("which"))
    .values(
        status=Status.QUEUED.value,
        lost_attempts=0,
        completed_at=None,
        stop_requested_at=None,
        error_code=None,
        error_detail=None,
        prompt_tokens=None,
        completion_tokens=None,
    )
    .returning(messages)
)
_OF_SESSION: Final = messages.c.session_id == bindparam("session_id")
_STATE: Final = select(
    select(func.max(messages.c.ordinal)).where(_OF_SESSION).scalar_subquery(),
    select(messages.c.id).where(_OF_SESSION, UNFINISHED).scalar_subquery(),
    select(messages.c.id)
    .where(_OF_SESSION, messages.c.client_message_id == bindparam("client_message_id"))
    .scalar_subquery(),
)
"""Each by an index of its own. They cannot be part of the statement that takes the lock, which on
PostgreSQL would see the messages as they were before it had waited for it."""


async def accept_question(
    database: Database,
    *,
    user_id: str,
    session_id: str,
    new_session_title: str,
    message_id: str,
    answer_id: str,
    text: str,
    client_message_id: str | None,
    model: str,
    now: datetime,
    events: EventsOf[Accepted],
) -> Accepted:
    """Store a question and its queued answer, in a new session where there is none of that id.

    The same ``client_message_id`` in the same session changes nothing, also while an answer is
    being generated, also when both arrive at once: it gives the first call's messages with
    ``repeated`` set, and ``events`` is not called. A session without a title gets
    ``new_session_title``. The user must exist (``ensure_user``).

    Raises NotFound for a session that is somebody else's or deleted, GenerationInProgress (with
    the ``message_id``) while the session is being answered.
    """
    async with database.write() as connection:
        entered = await _enter_session(connection, user_id, session_id, new_session_title, now)
        ordinal = 0
        if not entered.created:
            found = await _state(connection, session_id, client_message_id)
            if found.earlier is not None:
                return await _accepted_earlier(connection, entered.session, found.earlier)
            if found.unfinished is not None:
                raise GenerationInProgress(message_id=found.unfinished)
            ordinal = found.last_ordinal or 0
        question = Message(
            message_id=message_id,
            session_id=session_id,
            role=Role.USER,
            content=text,
            status=Status.COMPLETE,
            is_complete=True,
            attempt=0,
            model=None,
            created_at=timestamp(now),
            completed_at=timestamp(now),
        )
        answer = Message(
            message_id=answer_id,
            session_id=session_id,
            role=Role.ASSISTANT,
            content="",
            status=Status.QUEUED,
            is_complete=False,
            attempt=0,
            model=model,
            created_at=timestamp(now),
        )
        stored = [
            _row(question, now, ordinal=ordinal + 1, client_message_id=client_message_id),
            _row(answer, now, ordinal=ordinal + 2, parent_id=message_id),
        ]
        await connection.execute(_ADD_MESSAGES, stored)
        session = entered.session
        if not entered.created:
            session = await _change_session(
                connection, session, session.title or new_session_title, now
            )
        accepted = Accepted(
            session=session,
            user_message=question,
            assistant_message=answer,
            created_session=entered.created,
            pristine=entered.pristine,
            repeated=False,
        )
        await add_events(connection, events(accepted))
        return accepted


async def accept_regeneration(
    database: Database,
    *,
    user_id: str,
    message_id: str,
    model: str | None,
    keep: bool,
    now: datetime,
    events: EventsOf[Accepted],
) -> Accepted:
    """Queue the session's latest answer again, under its own message id.

    It is emptied, or with ``keep`` left as it is, for the next attempt to go on with.

    ``message_id`` names the answer, or the question that it answers; ``model`` None asks the
    model that answered before. ``attempt`` goes up by one although nothing has begun: a worker
    that woke up late with the answer before could otherwise finish this one under the number that
    both share.

    Raises NotFound, GenerationInProgress (with the ``message_id``), or NotRegenerable for an
    answer that is not the latest.
    """
    async with database.write() as connection:
        locked = await lock_message(connection, message_id)
        if locked is None or locked.session.user_id != user_id:
            raise NotFound
        session, named = locked
        found = await _state(connection, session.id, None)
        if found.unfinished is not None:
            raise GenerationInProgress(message_id=found.unfinished)
        answer = named if named.role == Role.ASSISTANT else await _answer_to(connection, named.id)
        if answer is None or answer.parent_id is None:
            raise NotFound
        if answer.ordinal != found.last_ordinal:
            raise NotRegenerable
        question = await read_message(connection, answer.parent_id)
        if question is None:
            raise NotFound
        awaited = await connection.execute(
            _AWAITED_AGAIN,
            {
                "which": answer.id,
                "content": answer.content if keep else "",
                # Thoughts without an answer are begun anew, as after a worker's death.
                "reasoning": answer.reasoning if keep and answer.content else None,
                "attempt": answer.attempt + 1,
                "model": model or answer.model,
                "updated_at": now,
            },
        )
        accepted = Accepted(
            session=await _change_session(connection, session_from(session), session.title, now),
            user_message=message_from(question),
            assistant_message=message_from(awaited.one()),
            created_session=False,
            pristine=not session.log_begun,
            repeated=False,
        )
        await add_events(connection, events(accepted))
        return accepted


async def _enter_session(
    connection: AsyncConnection,
    user_id: str,
    session_id: str,
    new_session_title: str,
    now: datetime,
) -> _Entered:
    row = await lock_session(connection, session_id)
    if row is None:
        # Of two that create the same session at once, one inserts and the other waits for it.
        created = await insert_if_absent(
            connection,
            chat_sessions,
            {
                "id": session_id,
                "user_id": user_id,
                "title": new_session_title,
                "log_begun": True,
                "created_at": now,
                "updated_at": now,
                "revision": 1,
            },
        )
        if created:
            # Nobody else sees the row before this transaction ends: that is as good as its lock.
            written = timestamp(now)
            session = Session(
                session_id=session_id,
                title=new_session_title,
                created_at=written,
                updated_at=written,
            )
            return _Entered(session, created=True, pristine=True)
        row = await lock_session(connection, session_id)
    if row is None or row.user_id != user_id or row.deleted_at is not None:
        raise NotFound
    return _Entered(session_from(row), created=False, pristine=not row.log_begun)


async def _state(
    connection: AsyncConnection, session_id: str, client_message_id: str | None
) -> _State:
    """Read what decides over a question; only under the session's lock does it stay true."""
    found = await connection.execute(
        _STATE, {"session_id": session_id, "client_message_id": client_message_id}
    )
    return _State(*found.one())


async def _accepted_earlier(
    connection: AsyncConnection, session: Session, question_id: str
) -> Accepted:
    question = await read_message(connection, question_id)
    answer = await _answer_to(connection, question_id)
    if question is None or answer is None:
        raise RuntimeError(f"question {question_id} has no answer")
    return Accepted(
        session=session,
        user_message=message_from(question),
        assistant_message=message_from(answer),
        created_session=False,
        pristine=False,
        repeated=True,
    )


async def _answer_to(connection: AsyncConnection, question_id: str) -> AnyRow | None:
    found = await connection.execute(select_messages().where(messages.c.parent_id == question_id))
    return found.one_or_none()


async def _change_session(
    connection: AsyncConnection, session: Session, title: str, now: datetime
) -> Session:
    # The log counts as begun before anything is appended to it: were it the other way round, a
    # crash in between would pass a log with a past off as one that begins at 0-0.
    await connection.execute(
        _CHANGE_SESSION,
        {"which": session.session_id, "title": title, "log_begun": True, "updated_at": now},
    )
    return replace(session, title=title, updated_at=timestamp(now))


def _row(
    message: Message,
    now: datetime,
    *,
    ordinal: int,
    client_message_id: str | None = None,
    parent_id: str | None = None,
) -> dict[str, Any]:
    return {
        "id": message.message_id,
        "session_id": message.session_id,
        "ordinal": ordinal,
        "role": message.role.value,
        "content": message.content,
        "status": message.status.value,
        "attempt": message.attempt,
        "lost_attempts": 0,
        "model": message.model,
        "client_message_id": client_message_id,
        "parent_id": parent_id,
        "created_at": now,
        "updated_at": now,
        "completed_at": now if message.is_complete else None,
    }
