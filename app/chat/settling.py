"""Ending an answer that nobody writes (any more): stopped, or given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.db import attempts
from app.domain.events import new_entry
from app.domain.messages import Status
from app.streams.session_log import AppendOutcome, Claimed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from app.db.engine import Database
    from app.domain.messages import AnswerError, Message
    from app.events.envelope import EventBuilder
    from app.streams.session_log import SessionLog


class Settling:
    """Writes final states under a lease, as a worker does, with the text that the log has."""

    def __init__(
        self,
        *,
        database: Database,
        log: SessionLog,
        events: EventBuilder,
        node_id: str,
        lease_ms: int,
        clock: Callable[[], datetime],
    ) -> None:
        """Take the parts; the lease is held for one write only."""
        self._database = database
        self._log = log
        self._events = events
        self._node_id = node_id
        self._lease_ms = lease_ms
        self._clock = clock

    async def settle_unowned(
        self, message: Message, user_id: str, in_reply_to: str | None
    ) -> Message | None:
        """Cancel an answer whose session nobody holds; None where somebody does, or was faster."""
        claimed = await self._log.claim(
            message.session_id, message.message_id, self._node_id, self._lease_ms
        )
        if not isinstance(claimed, Claimed):
            return None
        return await self.settle(
            claimed, message, Status.CANCELLED, None, user_id=user_id, in_reply_to=in_reply_to
        )

    async def settle(
        self,
        claimed: Claimed,
        message: Message,
        status: Status,
        error: AnswerError | None,
        *,
        user_id: str,
        in_reply_to: str | None,
    ) -> Message | None:
        """End an answer under a lease that is held; None where another was faster.

        ``user_id`` is the asker's, and ``in_reply_to`` the question: the record names both.
        """
        now = self._clock()
        final = await attempts.finish_answer(
            self._database,
            message_id=message.message_id,
            attempt=message.attempt,
            status=status,
            # Where the log was lost, what the answer had before it was to be gone on with.
            content=claimed.active.text if claimed.active else message.content,
            reasoning=(claimed.active.reasoning or None) if claimed.active else message.reasoning,
            error=error,
            usage=None,
            now=now,
            events=lambda ended: [
                self._events.stream_ended(ended, total_chunks=0, duration_ms=0, now=now),
                self._events.chat_message(ended, user_id=user_id, now=now, in_reply_to=in_reply_to),
            ],
        )
        if final is None:
            await self._log.release(claimed.lease)
            return None
        outcome = await self._log.finish(
            claimed.lease, final.message_id, final.attempt, new_entry(final)
        )
        return final if outcome is AppendOutcome.OK else None
