"""Reading what was said: the database, with the text so far of an answer that is being written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from app.db import history, sessions
from app.db.results import SessionState
from app.domain.errors import NotFound, Unavailable
from app.domain.messages import Message
from app.domain.position import BEFORE_ALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.db.engine import Database
    from app.streams.session_log import ActiveAnswer, SessionLog

WHOLE_MESSAGES = 1000
"""Messages in the whole state of a session: the newest ones; older ones come page by page."""


class MessagePage(msgspec.Struct, frozen=True):
    """Messages, oldest first, and the position of the session log that this state stands at."""

    items: list[Message]
    position: str


class Reading:
    """Reads the state of a session so that no event after its position is missed by it."""

    def __init__(self, database: Database, log: SessionLog) -> None:
        """Take the two that hold the state."""
        self._database = database
        self._log = log

    async def whole(self, session_id: str, user_id: str) -> MessagePage:
        """Read the whole state for a stream; raise NotFound, or Unavailable without the log."""
        state = await sessions.session_state(self._database, user_id=user_id, session_id=session_id)
        if state is SessionState.DELETED:
            raise NotFound
        return await self._read(session_id, WHOLE_MESSAGES, None)

    async def page(
        self, session_id: str, user_id: str, limit: int, before: str | None
    ) -> MessagePage:
        """Read one page; without Redis it comes from the database alone, standing at 0-0."""
        await sessions.session(self._database, user_id=user_id, session_id=session_id)
        try:
            return await self._read(session_id, limit, before)
        except Unavailable:
            items = await history.messages(
                self._database, session_id=session_id, limit=limit, before=before
            )
            return MessagePage(items, str(BEFORE_ALL))

    async def _read(self, session_id: str, limit: int, before: str | None) -> MessagePage:
        # The log first: what happens between the two reads is then seen twice (harmless, a
        # repeat is recognised) and never skipped.
        snapshot = await self._log.snapshot(session_id)
        items = await history.messages(
            self._database, session_id=session_id, limit=limit, before=before
        )
        return MessagePage(with_text_so_far(items, snapshot.active), str(snapshot.position))


def with_text_so_far(items: Sequence[Message], active: ActiveAnswer | None) -> list[Message]:
    """Put the text so far into the unfinished answer; a final state in the database wins."""
    if active is None:
        return list(items)
    return [
        replace(item, content=active.text, attempt=active.attempt or item.attempt)
        if item.message_id == active.message_id and not item.is_complete
        else item
        for item in items
    ]
