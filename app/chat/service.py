"""The chat itself: ask, stop, ask again; sessions; history."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from app.db import attempts, history, questions, search, sessions, users
from app.domain.errors import Overloaded, Unavailable
from app.domain.events import SessionChanged, new_entry
from app.domain.messages import (
    Message,
    Status,
    check_client_message_id,
    check_message,
    check_search,
    check_session_id,
    check_title,
    title_from_question,
)
from app.domain.position import BEFORE_ALL

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import structlog

    from app.chat.deletion import Deletion
    from app.chat.reading import MessagePage, Reading
    from app.chat.settling import Settling
    from app.db.engine import Database
    from app.db.results import Accepted, SessionPage
    from app.db.search import Hit
    from app.domain.caller import Caller
    from app.domain.messages import Session
    from app.domain.outbox import OutboxEvent
    from app.events.envelope import EventBuilder
    from app.models.registry import ModelDescription, ModelRegistry
    from app.streams.jobs import JobQueue
    from app.streams.session_log import SessionLog


_KNOWN_USERS = 10_000
"""Users that a process remembers to be in the database."""

_KNOWN_SECONDS = 60.0
"""How late a node may find out that an account was shut, where no revocation said so before."""


class Asked(msgspec.Struct, frozen=True):
    """A question that was accepted, and where the log stands right after it."""

    session_id: str
    user_message: Message
    assistant_message: Message
    position: str


class ModelList(msgspec.Struct, frozen=True):
    """The models that a question may name."""

    items: list[ModelDescription]
    default: str


class Chat:
    """What a caller may do. Everything raises errors of ``app.domain.errors`` only."""

    def __init__(
        self,
        *,
        database: Database,
        log: SessionLog,
        jobs: JobQueue,
        reading: Reading,
        settling: Settling,
        models: ModelRegistry,
        events: EventBuilder,
        queue_limit: int,
        deletion: Deletion,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        """Take the parts."""
        self._database = database
        self._log = log
        self._jobs = jobs
        self._reading = reading
        self._settling = settling
        self._models = models
        self._events = events
        self._queue_limit = queue_limit
        self.deletion = deletion
        self._new_id = new_id
        self._clock = clock
        self._logger = logger
        self._known_users: dict[str, float] = {}

    async def ask(
        self,
        caller: Caller,
        *,
        text: str,
        session_id: str | None,
        client_message_id: str | None,
        model: str | None,
    ) -> tuple[Asked, bool]:
        """Accept a question; the second value tells that it had been accepted before.

        Once this returns, the question and its awaited answer are committed, and whatever happens
        to Redis or a worker, the answer comes or visibly fails.
        """
        text = check_message(text)
        session_id = self._new_id() if session_id is None else check_session_id(session_id)
        if client_message_id is not None:
            client_message_id = check_client_message_id(client_message_id)
        model_id = self._models.get(model).model_id
        await self._check_room()
        await self._ensure_user(caller)
        now = self._clock()
        accepted = await questions.accept_question(
            self._database,
            user_id=caller.user_id,
            session_id=session_id,
            new_session_title=title_from_question(text),
            message_id=self._new_id(),
            answer_id=self._new_id(),
            text=text,
            client_message_id=client_message_id,
            model=model_id,
            now=now,
            events=lambda found: self._question_events(caller, found, now),
        )
        if accepted.repeated:
            return await self._asked_before(caller, accepted), True
        return await self._enqueue(caller, accepted, [accepted.user_message]), False

    async def regenerate(
        self, caller: Caller, message_id: str, model: str | None = None, *, keep: bool = False
    ) -> Asked:
        """Have the latest question of a session answered once more, in place of its answer.

        With ``keep`` the answer is gone on with from where it ends, by a model that can; by any
        other it is started over.
        """
        model_id = None if model is None else self._models.get(model).model_id
        await self._check_room()
        accepted = await questions.accept_regeneration(
            self._database,
            user_id=caller.user_id,
            message_id=message_id,
            model=model_id,
            keep=keep,
            now=self._clock(),
            events=lambda _: [],
        )
        return await self._enqueue(caller, accepted, [])

    async def cancel(self, caller: Caller, message_id: str) -> tuple[Status, bool]:
        """Stop an answer; the second value is false where it had ended already.

        The request is committed before anything else, so that it holds whatever the worker that
        should obey is doing. Without a worker on the session the answer ends right here.
        """
        stop = await attempts.request_stop(
            self._database, user_id=caller.user_id, message_id=message_id, now=self._clock()
        )
        message = stop.message
        if not stop.accepted:
            return message.status, False
        try:
            owner = await self._log.cancel(message.session_id, message_id, message.attempt)
            if owner is None:
                ended = await self._settling.settle_unowned(
                    message, caller.user_id, stop.in_reply_to
                )
                message = ended or message
        except Unavailable:
            # It is committed: the next attempt reads it from the database before it begins.
            self._logger.warning("stop_not_announced", message_id=message_id)
        return message.status, True

    async def create_session(
        self, caller: Caller, session_id: str | None, title: str | None
    ) -> Session:
        """Make an empty session."""
        session_id = self._new_id() if session_id is None else check_session_id(session_id)
        title = "" if title is None else check_title(title)
        await self._ensure_user(caller)
        now = self._clock()
        return await sessions.create_session(
            self._database,
            user_id=caller.user_id,
            session_id=session_id,
            title=title,
            now=now,
            events=lambda made: [
                self._events.session_started(made, user_id=caller.user_id, now=now)
            ],
        )

    async def sessions(self, caller: Caller, limit: int, cursor: str | None) -> SessionPage:
        """List the caller's sessions, newest activity first."""
        return await sessions.sessions(
            self._database, user_id=caller.user_id, limit=limit, cursor=cursor
        )

    async def session(self, caller: Caller, session_id: str) -> Session:
        """Give one session of the caller's."""
        return await sessions.session(self._database, user_id=caller.user_id, session_id=session_id)

    async def rename_session(self, caller: Caller, session_id: str, title: str) -> Session:
        """Change a session's title and tell whoever follows it."""
        now = self._clock()
        changed = await sessions.rename_session(
            self._database,
            user_id=caller.user_id,
            session_id=session_id,
            title=check_title(title),
            now=now,
            events=lambda renamed: [
                self._events.session_renamed(renamed, user_id=caller.user_id, now=now)
            ],
        )
        session = changed.session
        entry = new_entry(SessionChanged(session.session_id, session.title))
        try:
            await self._log.record(session.session_id, [entry], pristine=changed.pristine)
        except Unavailable:
            self._logger.warning("rename_not_announced", session_id=session.session_id)
        return session

    async def search(self, caller: Caller, wanted: str, limit: int) -> list[Hit]:
        """Find what has ``wanted`` in a title or a message, newest first."""
        return await search.search(
            self._database, user_id=caller.user_id, wanted=check_search(wanted), limit=limit
        )

    async def message(self, caller: Caller, message_id: str) -> Message:
        """Give a message as it is stored: of an unfinished answer, without its text so far."""
        return await history.message(self._database, user_id=caller.user_id, message_id=message_id)

    async def history(
        self, caller: Caller, session_id: str, limit: int = 100, before: str | None = None
    ) -> MessagePage:
        """Give a page of messages and the position that it stands at."""
        return await self._reading.page(session_id, caller.user_id, limit, before)

    async def history_around(
        self, caller: Caller, session_id: str, message_id: str, limit: int
    ) -> MessagePage | None:
        """Give a page with this message in its middle; None where the newest page has it."""
        return await self._reading.around(session_id, caller.user_id, message_id, limit)

    def models(self) -> ModelList:
        """List the models."""
        return ModelList(self._models.describe(), self._models.default)

    async def _check_room(self) -> None:
        # Before the database is touched: with Redis away or the queue full nothing is accepted,
        # and the caller is told at once instead of waiting for an answer that does not begin.
        if await self._jobs.depth() >= self._queue_limit:
            raise Overloaded

    async def _ensure_user(self, caller: Caller) -> None:
        # Users are never removed: who was found need not be looked for again for a while.
        found_at = self._known_users.get(caller.user_id)
        if found_at is not None and time.monotonic() - found_at < _KNOWN_SECONDS:
            return
        await users.ensure_user(
            self._database, user_id=caller.user_id, name=caller.name, now=self._clock()
        )
        if len(self._known_users) >= _KNOWN_USERS:
            self._known_users.clear()
        self._known_users[caller.user_id] = time.monotonic()

    async def _enqueue(self, caller: Caller, accepted: Accepted, said: list[Message]) -> Asked:
        answer = accepted.assistant_message
        session_id = accepted.session.session_id
        position = BEFORE_ALL
        try:
            position, untold = await self._log.submit(
                session_id,
                answer.message_id,
                answer.attempt,
                [new_entry(message) for message in said],
                kept=answer.content,
                kept_reasoning=answer.reasoning or "",
                pristine=accepted.pristine,
            )
            await self._jobs.enqueue(session_id, answer.message_id, caller.user_id)
            if untold is not None:
                await self._tell_end(session_id, untold)
        except Unavailable:
            # Committed is accepted: the reconciler enqueues what nothing covers.
            self._logger.warning("answer_not_enqueued", message_id=answer.message_id)
        return Asked(session_id, accepted.user_message, answer, str(position))

    async def _tell_end(self, session_id: str, message_id: str) -> None:
        """Tell the final state that a worker stored and then died before it told it.

        Its job's next worker would tell it too, but not before it gets the session's lease, which
        the answer after it may hold for long.
        """
        message = await history.message_by_id(self._database, message_id=message_id)
        if message is not None and message.is_complete:
            await self._log.record(session_id, [new_entry(message)], pristine=False)

    async def _asked_before(self, caller: Caller, accepted: Accepted) -> Asked:
        session_id = accepted.session.session_id
        page = await self._reading.page(session_id, caller.user_id, 100, None)
        now = {message.message_id: message for message in page.items}
        question, answer = accepted.user_message, accepted.assistant_message
        return Asked(
            session_id,
            now.get(question.message_id, question),
            now.get(answer.message_id, answer),
            page.position,
        )

    def _question_events(
        self, caller: Caller, accepted: Accepted, now: datetime
    ) -> list[OutboxEvent]:
        events = []
        if accepted.created_session:
            events.append(
                self._events.session_started(accepted.session, user_id=caller.user_id, now=now)
            )
        events.append(
            self._events.chat_message(accepted.user_message, user_id=caller.user_id, now=now)
        )
        return events
