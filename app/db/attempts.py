"""The life of a queued answer: attempts begin, end, are handed over, are asked to stop.

The attempt number is the database's fencing token. It goes up whenever the right to finish an
answer changes hands, and whoever comes with an older number changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Integer, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.locking import lock_message, lock_session_of
from app.db.outbox import add_events
from app.db.results import (
    AlreadyFinal,
    Attempt,
    Begun,
    EventsOf,
    Exhausted,
    Gone,
    StopRequested,
    StopResult,
    Turn,
)
from app.db.rows import AnyRow, message_from, select_messages
from app.db.tables import NEXT_REVISION, UNFINISHED, chat_sessions, messages
from app.domain.errors import NotFound
from app.domain.messages import AnswerError, Message, Role, Status, Usage

_CHANGE_UNFINISHED: Final = (
    update(messages)
    # The session's lock makes this condition true. It is repeated here so that a mistake in
    # the locking could at worst make an answer late, never overwrite a newer attempt's.
    .where(
        messages.c.id == bindparam("which"),
        messages.c.attempt == bindparam("under"),
        UNFINISHED,
    )
    .returning(messages)
)
_CHANGE_SESSION: Final = (
    update(chat_sessions)
    .where(chat_sessions.c.id == bindparam("which"))
    .values(revision=NEXT_REVISION)
)
_CONVERSATION: Final = (
    select(messages.c.role, messages.c.content)
    .where(
        messages.c.session_id == bindparam("session_id"),
        messages.c.ordinal <= bindparam("until"),
        # An answer that failed before its first word says nothing.
        messages.c.content != "",
    )
    .order_by(messages.c.ordinal.desc())
    .limit(bindparam("turns", type_=Integer))
)
_ASKED: Final = messages.alias()
_PAIR: Final = select_messages().where(
    or_(
        messages.c.id == bindparam("answer_id"),
        messages.c.id
        == select(_ASKED.c.parent_id)
        .where(_ASKED.c.id == bindparam("answer_id"))
        .scalar_subquery(),
    )
)


async def begin_attempt(
    database: Database,
    *,
    message_id: str,
    max_attempts: int,
    max_turns: int,
    now: datetime,
    events: EventsOf[Begun],
) -> Attempt:
    """Begin the next attempt at an answer, unless there is a reason not to.

    An answer that is found streaming was given up without a word by the attempt before (the caller
    holds the session's lease); when that happened ``max_attempts`` times it is Exhausted. The
    conversation has ``max_turns`` messages at most, the newest ones.
    """
    async with database.write() as connection:
        session = await lock_session_of(connection, message_id)
        pair = None if session is None else await _pair(connection, message_id)
        if session is None or pair is None:
            return Gone()
        answer, question = pair
        found = (message_from(answer), message_from(question), session.user_id)
        if Status(answer.status).is_final:
            return AlreadyFinal(*found)
        if answer.stop_requested_at is not None:
            return StopRequested(*found)
        recovered = answer.status == Status.STREAMING
        lost_attempts = answer.lost_attempts + (1 if recovered else 0)
        if lost_attempts >= max_attempts:
            return Exhausted(*found)
        attempt = answer.attempt + 1
        changed = await _change_unfinished(
            connection,
            answer,
            {
                "status": Status.STREAMING.value,
                "attempt": attempt,
                "lost_attempts": lost_attempts,
                "updated_at": now,
            },
        )
        begun = Begun(
            message=message_from(changed),
            user_message=message_from(question),
            user_id=session.user_id,
            attempt=attempt,
            recovered=recovered,
            conversation=await _conversation(connection, question, max_turns),
        )
        await add_events(connection, events(begun))
        return begun


async def finish_answer(
    database: Database,
    *,
    message_id: str,
    attempt: int,
    status: Status,
    content: str,
    reasoning: str | None = None,
    error: AnswerError | None,
    usage: Usage | None,
    now: datetime,
    events: EventsOf[Message],
) -> Message | None:
    """Give an answer its final state, if ``attempt`` is still its number and it has none yet.

    None: superseded, nothing was changed. A complete answer that was asked to stop meanwhile is
    cancelled. The very same final state sent again (the reply to the commit was lost) gives the
    message again, and ``events`` is not called.
    """
    if not status.is_final:
        raise ValueError(f"{status} is not a final state")
    final: dict[str, Any] = {
        "status": status.value,
        "content": content,
        "reasoning": reasoning,
        "error_code": None if error is None else error.code,
        "error_detail": None if error is None else error.detail,
        "prompt_tokens": None if usage is None else usage.prompt_tokens,
        "completion_tokens": None if usage is None else usage.completion_tokens,
    }
    async with database.write() as connection:
        locked = await lock_message(connection, message_id)
        if locked is None or locked.message.attempt != attempt:
            return None
        session, answer = locked
        if status is Status.COMPLETE and answer.stop_requested_at is not None:
            # Its last words and the stop crossed: a stop that was accepted holds.
            final["status"] = Status.CANCELLED.value
        if Status(answer.status).is_final:
            repeat = all(answer._mapping[name] == value for name, value in final.items())  # noqa: SLF001
            return message_from(answer) if repeat else None
        finished = message_from(
            await _change_unfinished(
                connection, answer, final | {"updated_at": now, "completed_at": now}
            )
        )
        await connection.execute(_CHANGE_SESSION, {"which": session.id, "updated_at": now})
        await add_events(connection, events(finished))
        return finished


async def release_attempt(
    database: Database, *, message_id: str, attempt: int, now: datetime
) -> bool:
    """Hand an answer over in good order: it does not count as a lost attempt.

    False where the attempt is not the caller's any more.
    """
    async with database.write() as connection:
        locked = await lock_message(connection, message_id)
        if (
            locked is None
            or locked.message.attempt != attempt
            or locked.message.status != Status.STREAMING
        ):
            return False
        await _change_unfinished(
            connection, locked.message, {"status": Status.QUEUED.value, "updated_at": now}
        )
        return True


async def request_stop(
    database: Database, *, user_id: str, message_id: str, now: datetime
) -> StopResult:
    """Note durably that an answer is to end with the text so far; a repeat changes nothing.

    Raises NotFound for what is not an answer in one of the user's sessions.
    """
    async with database.write() as connection:
        locked = await lock_message(connection, message_id)
        if locked is None or locked.session.user_id != user_id:
            raise NotFound
        answer = locked.message
        if answer.role != Role.ASSISTANT:
            raise NotFound
        if Status(answer.status).is_final:
            return StopResult(message_from(answer), accepted=False, in_reply_to=answer.parent_id)
        if answer.stop_requested_at is None:
            await _change_unfinished(connection, answer, {"stop_requested_at": now})
        return StopResult(message_from(answer), accepted=True, in_reply_to=answer.parent_id)


async def _change_unfinished(
    connection: AsyncConnection, answer: AnyRow, values: Mapping[str, Any]
) -> AnyRow:
    changed = await connection.execute(
        _CHANGE_UNFINISHED, {**values, "which": answer.id, "under": answer.attempt}
    )
    row: AnyRow | None = changed.one_or_none()
    if row is None:
        raise RuntimeError(f"message {answer.id} changed under its session's lock")
    return row


async def _pair(connection: AsyncConnection, answer_id: str) -> tuple[AnyRow, AnyRow] | None:
    """Read an answer and its question; None where one of them is not there."""
    found = {row.id: row for row in await connection.execute(_PAIR, {"answer_id": answer_id})}
    answer = found.pop(answer_id, None)
    if answer is None or not found:
        return None
    (question,) = found.values()
    return answer, question


async def _conversation(
    connection: AsyncConnection, question: AnyRow, max_turns: int
) -> list[Turn]:
    newest = await connection.execute(
        _CONVERSATION,
        {"session_id": question.session_id, "until": question.ordinal, "turns": max_turns},
    )
    turns = [Turn(Role(role), content) for role, content in newest]
    # Cut in the middle of a pair, the rest would begin with an answer to nothing.
    if turns[-1].role is Role.ASSISTANT:
        turns.pop()
    return turns[::-1]
