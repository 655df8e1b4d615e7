"""Accepting a question: the user's message and the queued answer, in one transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.locking import insert_if_absent, lock_message, lock_session
from app.db.outbox import add_events
from app.db.results import Accepted, EventsOf
from app.db.rows import AnyRow, message_from, select_messages, select_sessions, session_from
from app.db.tables import UNFINISHED, chat_sessions, messages
from app.domain.errors import GenerationInProgress, NotFound, NotRegenerable
from app.domain.messages import Role, Status


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
        session, created = await _enter_session(connection, user_id, session_id, now)
        if client_message_id is not None:
            earlier = await _accepted_earlier(connection, session, client_message_id)
            if earlier is not None:
                return earlier
        await _refuse_while_answering(connection, session_id)
        ordinal = await _last_ordinal(connection, session_id) + 1
        question: dict[str, Any] = {
            "id": message_id,
            "session_id": session_id,
            "ordinal": ordinal,
            "role": Role.USER.value,
            "content": text,
            "status": Status.COMPLETE.value,
            "attempt": 0,
            "lost_attempts": 0,
            "model": None,
            "client_message_id": client_message_id,
            "parent_id": None,
            "created_at": now,
            "updated_at": now,
            "completed_at": now,
        }
        answer = question | {
            "id": answer_id,
            "ordinal": ordinal + 1,
            "role": Role.ASSISTANT.value,
            "content": "",
            "status": Status.QUEUED.value,
            "model": model,
            "client_message_id": None,
            "parent_id": message_id,
            "completed_at": None,
        }
        await connection.execute(insert(messages), [question, answer])
        accepted = await _accept(
            connection,
            session,
            message_id=message_id,
            answer_id=answer_id,
            title=session.title or new_session_title,
            created=created,
            now=now,
        )
        await add_events(connection, events(accepted))
        return accepted


async def accept_regeneration(
    database: Database,
    *,
    user_id: str,
    message_id: str,
    model: str | None,
    now: datetime,
    events: EventsOf[Accepted],
) -> Accepted:
    """Queue the session's latest answer again, emptied, under its own message id.

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
        await _refuse_while_answering(connection, session.id)
        answer = named if named.role == Role.ASSISTANT else await _answer_to(connection, named.id)
        if answer is None or answer.parent_id is None:
            raise NotFound
        if answer.ordinal != await _last_ordinal(connection, session.id):
            raise NotRegenerable
        await connection.execute(
            update(messages)
            .where(messages.c.id == answer.id)
            .values(
                status=Status.QUEUED.value,
                content="",
                attempt=answer.attempt + 1,
                lost_attempts=0,
                model=model or answer.model,
                updated_at=now,
                completed_at=None,
                stop_requested_at=None,
                error_code=None,
                error_detail=None,
                prompt_tokens=None,
                completion_tokens=None,
            )
        )
        accepted = await _accept(
            connection,
            session,
            message_id=answer.parent_id,
            answer_id=answer.id,
            title=session.title,
            created=False,
            now=now,
        )
        await add_events(connection, events(accepted))
        return accepted


async def _enter_session(
    connection: AsyncConnection, user_id: str, session_id: str, now: datetime
) -> tuple[AnyRow, bool]:
    created = False
    session = await lock_session(connection, session_id)
    if session is None:
        # Of two that create the same session at once, one inserts and the other waits for it.
        created = await insert_if_absent(
            connection,
            chat_sessions,
            {
                "id": session_id,
                "user_id": user_id,
                "title": "",
                "log_begun": False,
                "created_at": now,
                "updated_at": now,
            },
        )
        session = await lock_session(connection, session_id)
    if session is None or session.user_id != user_id or session.deleted_at is not None:
        raise NotFound
    return session, created


async def _accepted_earlier(
    connection: AsyncConnection, session: AnyRow, client_message_id: str
) -> Accepted | None:
    found = await connection.execute(
        select_messages().where(
            messages.c.session_id == session.id,
            messages.c.client_message_id == client_message_id,
        )
    )
    question = found.one_or_none()
    answer = None if question is None else await _answer_to(connection, question.id)
    if question is None or answer is None:
        return None
    return Accepted(
        session=session_from(session),
        user_message=message_from(question),
        assistant_message=message_from(answer),
        created_session=False,
        pristine=False,
        repeated=True,
    )


async def _answer_to(connection: AsyncConnection, question_id: str) -> AnyRow | None:
    found = await connection.execute(select_messages().where(messages.c.parent_id == question_id))
    return found.one_or_none()


async def _refuse_while_answering(connection: AsyncConnection, session_id: str) -> None:
    found = await connection.execute(
        select(messages.c.id).where(messages.c.session_id == session_id, UNFINISHED)
    )
    unfinished = found.scalar_one_or_none()
    if unfinished is not None:
        raise GenerationInProgress(message_id=unfinished)


async def _last_ordinal(connection: AsyncConnection, session_id: str) -> int:
    found = await connection.execute(
        select(func.max(messages.c.ordinal)).where(messages.c.session_id == session_id)
    )
    return found.scalar_one_or_none() or 0


async def _accept(
    connection: AsyncConnection,
    session: AnyRow,
    *,
    message_id: str,
    answer_id: str,
    title: str,
    created: bool,
    now: datetime,
) -> Accepted:
    # The log counts as begun before anything is appended to it: were it the other way round, a
    # crash in between would pass a log with a past off as one that begins at 0-0.
    await connection.execute(
        update(chat_sessions)
        .where(chat_sessions.c.id == session.id)
        .values(title=title, log_begun=True, updated_at=now)
    )
    changed = await connection.execute(select_sessions().where(chat_sessions.c.id == session.id))
    question = await connection.execute(select_messages().where(messages.c.id == message_id))
    answer = await connection.execute(select_messages().where(messages.c.id == answer_id))
    return Accepted(
        session=session_from(changed.one()),
        user_message=message_from(question.one()),
        assistant_message=message_from(answer.one()),
        created_session=created,
        pristine=not session.log_begun,
        repeated=False,
    )
