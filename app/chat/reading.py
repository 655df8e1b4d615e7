"""Reading what was said: the database, with the text so far of an answer that is being written."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from app.db import history
from app.domain.errors import NotFound, Unavailable
from app.domain.messages import Message, Status
from app.domain.position import BEFORE_ALL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from app.chat.history_cache import HistoryCache
    from app.db.engine import Database
    from app.streams.session_log import ActiveAnswer, SessionLog, Snapshot

WHOLE_MESSAGES = 1000
"""Messages in the whole state of a session: the newest ones; older ones come page by page."""


_LOG_SECONDS = 2.0
"""How long a page waits for the log: a server that is frozen is told from one that is slow, as
when a question is asked, in a moment and not in the time that a command may take."""


class MessagePage(msgspec.Struct, frozen=True):
    """Messages, oldest first, and the position of the session log that this state stands at."""

    items: list[Message]
    position: str


class Reading:
    """Reads the state of a session so that no event after its position is missed by it."""

    def __init__(
        self, database: Database, log: SessionLog, cache: HistoryCache | None = None
    ) -> None:
        """Take what holds the state; without a cache all is read from the database."""
        self._database = database
        self._log = log
        self._cache = cache

    async def whole(self, session_id: str, user_id: str) -> MessagePage:
        """Read the whole state for a stream; raise NotFound, or Unavailable without the log."""
        return await self._state(session_id, user_id, WHOLE_MESSAGES, None, self._log.snapshot)

    async def page(
        self, session_id: str, user_id: str, limit: int, before: str | None
    ) -> MessagePage:
        """Read one page; without Redis it comes from the database alone, standing at 0-0."""
        return await self._state(session_id, user_id, limit, before, self._snapshot)

    async def around(
        self, session_id: str, user_id: str, message_id: str, limit: int
    ) -> MessagePage | None:
        """Read a page with this message in its middle; None where the newest page has it.

        Raises NotFound where the session has no such message.
        """
        # One look at the log for both: where it is frozen nobody waits twice.
        snapshot = await self._snapshot(session_id)
        newest = await self._read(session_id, user_id, limit, None, snapshot)
        if any(item.message_id == message_id for item in newest.items):
            return None
        before = await history.cursor_after(
            self._database, session_id=session_id, message_id=message_id, count=limit // 2
        )
        return await self._read(session_id, user_id, limit, before, snapshot)

    async def _state(
        self,
        session_id: str,
        user_id: str,
        limit: int,
        before: str | None,
        look: Callable[[str], Awaitable[Snapshot | None]],
    ) -> MessagePage:
        snapshot = await look(session_id)
        page = await self._read(session_id, user_id, limit, before, snapshot)
        if snapshot is not None and _began_meanwhile(page, snapshot):
            # This process may have been frozen between the two looks, for as long as several
            # attempts took. Each of them would be told again, of an answer shown in its last one.
            snapshot = await look(session_id)
            page = await self._read(session_id, user_id, limit, before, snapshot)
        return page

    async def _snapshot(self, session_id: str) -> Snapshot | None:
        """Look at the log, within bounds; None where it cannot be reached."""
        try:
            async with asyncio.timeout(_LOG_SECONDS):
                return await self._log.snapshot(session_id)
        except (Unavailable, TimeoutError):
            return None

    async def _read(
        self,
        session_id: str,
        user_id: str,
        limit: int,
        before: str | None,
        snapshot: Snapshot | None,
    ) -> MessagePage:
        # The log comes first, the session's row second, the messages last. What happens between
        # the first two is then seen twice (harmless, a repeat is recognised) and never skipped.
        # Were the row first, its version could be one that the log's position has left behind,
        # and the copy that was kept for it would lack a message which no event brings any more.
        try:
            version = await history.version(self._database, user_id=user_id, session_id=session_id)
        except NotFound:
            if self._cache is not None:
                self._cache.forget(session_id)
            raise
        if self._cache is None:
            items: Sequence[Message] = await history.messages(
                self._database, session_id=session_id, limit=limit, before=before
            )
        elif before is not None or (snapshot is not None and snapshot.active is not None):
            # Of what is being written there is no copy.
            items = await self._cache.from_database(session_id, limit, before)
        else:
            items = await self._cache.newest(session_id, version, limit)
        if snapshot is None:
            return MessagePage(list(items), str(BEFORE_ALL))
        return MessagePage(with_text_so_far(items, snapshot.active), str(snapshot.position))


def _began_meanwhile(page: MessagePage, snapshot: Snapshot) -> bool:
    """Tell whether an answer is being written that the log, as it was seen, knew nothing of."""
    known = None if snapshot.active is None else snapshot.active.message_id
    return any(item.status is Status.STREAMING and item.message_id != known for item in page.items)


def with_text_so_far(items: Sequence[Message], active: ActiveAnswer | None) -> list[Message]:
    """Put the text so far into the unfinished answer; a final state in the database wins.

    The attempt is the log's too, 0 before the first has begun: the database may be ahead, and what
    the log has after this position would speak of attempts that lie behind.
    """
    if active is None:
        return list(items)
    return [
        replace(
            item,
            content=active.text,
            reasoning=active.reasoning or None,
            attempt=active.attempt,
        )
        if item.message_id == active.message_id and not item.is_complete
        else item
        for item in items
    ]
