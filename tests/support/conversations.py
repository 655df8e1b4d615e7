"""A user who talks: the database's operations with what most tests do not care about filled in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import uuid_utils
from sqlalchemy import select

from app.db import attempts, questions, sessions, users
from app.db.engine import Database
from app.db.results import Accepted, Attempt, Begun, EventsOf, SessionChange, SessionDeleted
from app.db.tables import outbox
from app.domain.messages import AnswerError, Message, Session, Status, Usage
from app.domain.outbox import OutboxEvent
from app.events.envelope import EventBuilder

NOON = datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)


def after(seconds: float) -> datetime:
    """Give the moment that many seconds after NOON."""
    return NOON + timedelta(seconds=seconds)


def new_id() -> str:
    return str(uuid_utils.uuid7())


def no_events(_found: object) -> Sequence[OutboxEvent]:
    return []


def never(_found: object) -> Sequence[OutboxEvent]:
    """Take the place of ``events`` where nothing must change."""
    raise AssertionError("something was about to be changed")


class Talker:
    """One user in one session."""

    def __init__(self, database: Database, user_id: str = "ada", session_id: str = "s-1") -> None:
        self.database = database
        self.user_id = user_id
        self.session_id = session_id
        self.events = EventBuilder("node-1", new_id)

    async def arrive(self) -> Talker:
        """Make the user known."""
        await users.ensure_user(self.database, user_id=self.user_id, name=self.user_id, now=NOON)
        return self

    async def ask(
        self,
        text: str = "How are you?",
        *,
        key: str | None = None,
        session_id: str | None = None,
        now: datetime = NOON,
        events: EventsOf[Accepted] | None = None,
        database: Database | None = None,
    ) -> Accepted:
        return await questions.accept_question(
            database or self.database,
            user_id=self.user_id,
            session_id=session_id or self.session_id,
            new_session_title="A title",
            message_id=new_id(),
            answer_id=new_id(),
            text=text,
            client_message_id=key,
            model="demo",
            now=now,
            events=events or self.tell_of_question,
        )

    async def ask_again(
        self,
        message_id: str,
        *,
        now: datetime = NOON,
        model: str | None = "demo",
        keep: bool = False,
    ) -> Accepted:
        return await questions.accept_regeneration(
            self.database,
            user_id=self.user_id,
            message_id=message_id,
            model=model,
            keep=keep,
            now=now,
            events=no_events,
        )

    def tell_of_question(self, accepted: Accepted) -> list[OutboxEvent]:
        told = []
        if accepted.created_session:
            told.append(
                self.events.session_started(accepted.session, user_id=self.user_id, now=NOON)
            )
        told.append(self.events.chat_message(accepted.user_message, user_id=self.user_id, now=NOON))
        return told

    async def begin(
        self,
        message_id: str,
        *,
        max_attempts: int = 3,
        max_turns: int = 100,
        now: datetime = NOON,
        database: Database | None = None,
    ) -> Attempt:
        return await attempts.begin_attempt(
            database or self.database,
            message_id=message_id,
            max_attempts=max_attempts,
            max_turns=max_turns,
            now=now,
            events=lambda begun: [
                self.events.stream_recovered(begun.message, now=now)
                if begun.recovered
                else self.events.stream_started(begun.message, now=now)
            ],
        )

    async def finish(
        self,
        message_id: str,
        attempt: int,
        content: str = "Fine.",
        *,
        reasoning: str | None = None,
        status: Status = Status.COMPLETE,
        error: AnswerError | None = None,
        usage: Usage | None = None,
        now: datetime = NOON,
        events: EventsOf[Message] | None = None,
        database: Database | None = None,
    ) -> Message | None:
        return await attempts.finish_answer(
            database or self.database,
            message_id=message_id,
            attempt=attempt,
            status=status,
            content=content,
            reasoning=reasoning,
            error=error,
            usage=usage,
            now=now,
            events=events
            or (
                lambda message: [
                    self.events.stream_ended(message, total_chunks=1, duration_ms=5, now=now)
                ]
            ),
        )

    async def exchange(self, text: str, answer: str, *, now: datetime = NOON) -> Accepted:
        """Ask and get an answer."""
        accepted = await self.ask(text, now=now)
        begun = await self.begin(accepted.assistant_message.message_id, now=now)
        assert isinstance(begun, Begun)
        assert await self.finish(begun.message.message_id, begun.attempt, answer, now=now)
        return accepted

    async def create(self, session_id: str, *, title: str = "", now: datetime = NOON) -> Session:
        return await sessions.create_session(
            self.database,
            user_id=self.user_id,
            session_id=session_id,
            title=title,
            now=now,
            events=self._of_session(self.events.session_started, now),
        )

    async def rename(self, title: str, *, now: datetime = NOON) -> SessionChange:
        return await sessions.rename_session(
            self.database,
            user_id=self.user_id,
            session_id=self.session_id,
            title=title,
            now=now,
            events=self._of_session(self.events.session_renamed, now),
        )

    async def delete(self, *, now: datetime = NOON) -> SessionDeleted:
        return await sessions.delete_session(
            self.database,
            user_id=self.user_id,
            session_id=self.session_id,
            now=now,
            events=self._of_session(self.events.session_deleted, now),
        )

    def _of_session(self, build: Callable[..., OutboxEvent], now: datetime) -> EventsOf[Session]:
        return lambda session: [build(session, user_id=self.user_id, now=now)]


async def told(database: Database) -> list[dict[str, Any]]:
    """Read the outbox's records in order."""
    async with database.read() as connection:
        rows = await connection.execute(select(outbox.c.payload).order_by(outbox.c.sequence))
        return [msgspec.json.decode(payload) for (payload,) in rows]


async def told_types(database: Database) -> list[str]:
    """Read the outbox's event types in order."""
    return [record["eventType"] for record in await told(database)]
