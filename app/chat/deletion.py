"""Deleting a session: for good, or so that its owner may take it back for a while.

One path for whoever wants it gone: its owner, the erasure of its owner's account, the time that
sessions are kept. The database forgets in one transaction, and keeps the session due to be purged;
Redis is told right after that, and once more by a worker's purge. So what a crash left, or what a
question that crossed the deletion wrote, goes as well.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

from app.db import erasure, sessions
from app.db.results import TextSoFar
from app.domain.errors import NotFound, Unavailable
from app.domain.events import SessionChanged, new_entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import structlog

    from app.db.engine import Database
    from app.db.results import SessionDeleted
    from app.domain.caller import Caller
    from app.domain.messages import Session
    from app.domain.outbox import OutboxEvent
    from app.events.envelope import EventBuilder
    from app.streams.session_log import SessionLog


class Deletion:
    """Deletes sessions and takes deletions back. Raises errors of ``app.domain.errors`` only."""

    def __init__(
        self,
        *,
        database: Database,
        log: SessionLog,
        events: EventBuilder,
        undo_seconds: float,
        clock: Callable[[], datetime],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        """Take the parts; with 0 seconds every deletion is for good."""
        self._database = database
        self._log = log
        self._events = events
        self.undo_seconds = undo_seconds
        self._undo = timedelta(seconds=undo_seconds)
        self._clock = clock
        self._logger = logger

    async def delete(self, caller: Caller, session_id: str) -> None:
        """Remove a session with all that was said in it, and end every stream of it."""
        await self._delete(caller.user_id, session_id)

    async def erase(self, user_id: str, *, limit: int) -> int:
        """Remove up to ``limit`` sessions of a user whose account is erased; give how many.

        0 means that none is left but what was put away, which is purged. Running answers first.
        """
        found = await erasure.sessions_left(self._database, user_id=user_id, limit=limit)
        for session_id in found:
            with contextlib.suppress(NotFound):
                await self._delete(user_id, session_id, reason="account")
        return len(found)

    async def retire(self, *, before: datetime, limit: int) -> int:
        """Remove up to ``limit`` sessions without activity since ``before``; give how many."""
        found = await sessions.idle_sessions(self._database, before=before, limit=limit)
        for user_id, session_id in found:
            # Somebody went on with it in between: it stays.
            with contextlib.suppress(NotFound):
                await self._delete(user_id, session_id, reason="retention", idle_before=before)
        return len(found)

    async def forget(self, session_id: str) -> None:
        """Remove what Redis has of a session that is gone for good; raise Unavailable."""
        await self._log.delete(session_id, new_entry(SessionChanged(session_id, "", deleted=True)))

    async def put_away(self, caller: Caller, session_id: str) -> None:
        """Delete a session as ``delete`` does, but let it be restored for a while.

        Until when is written down by this node's clock, and read by that of whoever restores it or
        removes it for good: the while is off by their difference.
        An answer that is being written ends as cancelled, with its text so far.
        """
        if not self._undo:
            await self.delete(caller, session_id)
            return
        text_so_far = await self._text_so_far(caller, session_id)
        now = self._clock()
        await sessions.put_away_session(
            self._database,
            user_id=caller.user_id,
            session_id=session_id,
            text_so_far=text_so_far,
            purge_at=now + self._undo,
            now=now,
            events=lambda gone: self._events_of(caller, gone, now),
        )
        await self._tell(session_id)

    async def restore(self, caller: Caller, session_id: str) -> Session:
        """Take a deletion back; raise NotFound once it is too late."""
        now = self._clock()
        session = await sessions.restore_session(
            self._database,
            user_id=caller.user_id,
            session_id=session_id,
            now=now,
            events=lambda restored: [
                self._events.session_restored(restored, user_id=caller.user_id, now=now)
            ],
        )
        entry = new_entry(SessionChanged(session_id, session.title))
        try:
            # Its log went with the deletion: it begins anew, under an epoch that nobody has seen,
            # and nodes that knew the session as deleted learn by it that it is not.
            await self._log.record(session_id, [entry], pristine=False)
        except Unavailable:
            self._logger.warning("restoration_not_announced", session_id=session_id)
        return session

    async def restorable(self, caller: Caller, session_id: str) -> Session | None:
        """Give a deleted session of the caller's that may still be restored."""
        return await sessions.restorable_session(
            self._database, user_id=caller.user_id, session_id=session_id, now=self._clock()
        )

    async def _delete(
        self,
        user_id: str,
        session_id: str,
        *,
        reason: str | None = None,
        idle_before: datetime | None = None,
    ) -> None:
        now = self._clock()
        await sessions.delete_session(
            self._database,
            user_id=user_id,
            session_id=session_id,
            now=now,
            idle_before=idle_before,
            events=lambda gone: [
                self._events.session_deleted(gone, user_id=user_id, now=now, reason=reason)
            ],
        )
        await self._tell(session_id)

    async def _text_so_far(self, caller: Caller, session_id: str) -> TextSoFar | None:
        # Whose session it is comes first: another's text is not even read.
        await sessions.session(self._database, user_id=caller.user_id, session_id=session_id)
        try:
            active = (await self._log.snapshot(session_id)).active
        except Unavailable:
            return None
        if active is None:
            return None
        return TextSoFar(active.message_id, active.text, active.reasoning or None)

    async def _tell(self, session_id: str) -> None:
        try:
            await self.forget(session_id)
        except Unavailable:
            self._logger.warning("deletion_not_announced", session_id=session_id)

    def _events_of(self, caller: Caller, gone: SessionDeleted, now: datetime) -> list[OutboxEvent]:
        deleted = self._events.session_deleted(gone.session, user_id=caller.user_id, now=now)
        if gone.cut is None:
            return [deleted]
        return [
            self._events.stream_ended(gone.cut, total_chunks=0, duration_ms=0, now=now),
            self._events.chat_message(
                gone.cut,
                user_id=caller.user_id,
                now=now,
                in_reply_to=gone.cut_in_reply_to,
            ),
            deleted,
        ]
