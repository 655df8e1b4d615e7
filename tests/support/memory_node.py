"""The following side of a web node on a log in memory: the product's own parts, joined by hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from app.chat.following import Follower, Following, FollowingLimits
from app.chat.reading import MessagePage, Reading, with_text_so_far
from app.chat.tails import TailLimits, Tails
from app.domain.caller import Caller
from app.domain.errors import NotFound, Unavailable
from app.domain.position import Position
from app.streams import keys
from app.streams.session_log import SessionLog
from app.telemetry import Metrics, create_metrics
from tests.support.scribe import Scribe

if TYPE_CHECKING:
    from app.db.engine import Database
    from app.streams.subscriber import Subscriber

CALLER = Caller("ada", "ada")
LIMITS = FollowingLimits(lifetime_seconds=900, heartbeat_seconds=15, connections_per_user=8)


class DistantLog:
    """A log as it is seen over a network: calls take turns of the loop, fail, and are counted."""

    def __init__(self, log: SessionLog) -> None:
        self.calls: Counter[str] = Counter()
        """How often each method was called."""
        self.away = False
        """Whether every call fails."""
        self.replies = asyncio.Event()
        """Set while replies arrive; what a call finds is what there is before it waits for this."""
        self.replies.set()
        self.during_reads: list[Callable[[], Awaitable[object]]] = []
        """What happens, one for each ``read``, after it found and before it is answered."""
        self._log = log

    @property
    def log(self) -> SessionLog:
        """This, as what it stands for."""
        return cast("SessionLog", self)

    def _reach(self) -> None:
        if self.away:
            raise Unavailable

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._log, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            self.calls[name] += 1
            await asyncio.sleep(0)
            self._reach()
            found = await method(*arguments, **named)
            if name == "read" and self.during_reads:
                await self.during_reads.pop(0)()
            await asyncio.sleep(0)
            await self.replies.wait()
            self._reach()
            return found

        return call


class Wire:
    """The subscription of one node; a test decides what is confirmed and what arrives."""

    def __init__(self) -> None:
        self.channels: set[str] = set()
        self.tails: Tails | None = None

    def subscribe(self, channel: str) -> None:
        self.channels.add(channel)

    def unsubscribe(self, channel: str) -> None:
        self.channels.discard(channel)

    def confirm(self, session_id: str) -> None:
        """Tell the node that publications arrive from now on."""
        assert self.tails is not None
        self.tails.subscribed(keys.channel(session_id))

    def deliver(self, session_id: str, payload: bytes) -> None:
        """Hand over a publication, to a node that subscribed."""
        channel = keys.channel(session_id)
        if channel in self.channels and self.tails is not None:
            self.tails.published(channel, payload)


class ScribedReading:
    """``Reading`` over what a ``Scribe`` has stored: the log first, the stored messages then."""

    def __init__(self, scribe: Scribe, log: SessionLog) -> None:
        self._scribe = scribe
        self._log = log

    async def whole(self, session_id: str, user_id: str) -> MessagePage:
        if self._scribe.deleted:
            raise NotFound
        snapshot = await self._log.snapshot(session_id)
        await asyncio.sleep(0)
        items = with_text_so_far(list(self._scribe.messages.values()), snapshot.active)
        return MessagePage(items, str(snapshot.position))


class MemoryNode:
    """Tails and followers of one node."""

    def __init__(
        self,
        log: SessionLog,
        reading: Reading,
        *,
        database: Database | None = None,
        ring_entries: int = 64,
        linger_seconds: float = 30,
        check_seconds: float = 3600,
        limits: FollowingLimits = LIMITS,
        metrics: Metrics | None = None,
    ) -> None:
        """Without a database, followers are made by ``join`` only."""
        self.wire = Wire()
        self.metrics = metrics or create_metrics()
        self.tails = Tails(
            log,
            cast("Subscriber", self.wire),
            limits=TailLimits(ring_entries, check_seconds, linger_seconds),
            metrics=self.metrics,
        )
        self.wire.tails = self.tails
        self.following = Following(
            node_id="web-1",
            database=cast("Database", database),
            log=log,
            tails=self.tails,
            reading=reading,
            limits=limits,
            metrics=self.metrics,
        )

    async def join(
        self, session_id: str, after: Position | None, caller: Caller = CALLER
    ) -> Follower:
        """Follow a session whose owner needs no proof."""
        follower = Follower(self.following, caller, session_id, after, "sse", full_content=False)
        try:
            follower.join(self.tails.hold(session_id))
        except BaseException:
            await follower.close()
            raise
        return follower
