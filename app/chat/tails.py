"""The tails of the sessions that somebody follows on this node, fed by one subscription."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import structlog

from app.domain.errors import ChatError, Unavailable
from app.domain.events import tells_deletion
from app.domain.position import BEFORE_ALL, Position
from app.domain.resume import Offered, Tail
from app.ending import end
from app.streams import keys
from app.streams.publication import parse_publication

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.streams.session_log import SessionLog
    from app.streams.subscriber import Subscriber
    from app.telemetry import Metrics

_READ_ENTRIES = 1000
_CHECK_SESSIONS = 500
_MAX_BYTES = 4 * 1024 * 1024
_RETRY_SECONDS = 0.2

logger = structlog.get_logger(__name__)


class TailLimits(NamedTuple):
    """What bounds a tail, and how often it is compared with the log."""

    ring_entries: int
    check_seconds: float
    linger_seconds: float
    """How long a tail outlives its last follower, so that a reload finds it warm."""


class SessionTail:
    """One session's tail with what is needed to keep it true."""

    def __init__(
        self, session_id: str, log: SessionLog, *, ring_entries: int, on_gap: Callable[[], None]
    ) -> None:
        """Start without knowledge; ``ready`` waits for the first read of the log."""
        self.session_id = session_id
        self.state = Tail(max_entries=ring_entries, max_bytes=_MAX_BYTES)
        self.followers = 0
        self._deleted_in: int | None = None
        """The epoch in which the session was deleted while it was followed here."""
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done at the next change; take it before looking, so that none is missed."""
        self._log = log
        self._on_gap = on_gap
        self._reading = asyncio.Lock()
        self._reads_begun = 0
        self._reads_done = 0
        self._read_failed = False
        self._behind = False
        self._catching_up: asyncio.Task[None] | None = None

    @property
    def deleted(self) -> bool:
        """Whether the session was deleted, and not restored since.

        A log that begins after the deletion, under a larger epoch, is that of a restored session.
        """
        return self._deleted_in is not None and self.state.position.epoch <= self._deleted_in

    def subscribed(self) -> None:
        """Publications arrive from now on; those before now may have been missed."""
        self.catch_up()

    def published(self, payload: bytes) -> None:
        """Take a publication; a hole before it is filled from the log in the background."""
        entries, original = parse_publication(payload)
        if tells_deletion(entries[-1]):
            # The log goes in the same moment: what does not follow on the tail cannot be read.
            self._deleted_in = entries[-1].position.epoch
            self.wake()
        match self.state.offer(entries, original=original):
            case Offered.TAKEN:
                self.wake()
            case Offered.REPEATED:
                pass
            case Offered.HOLE:
                if self.state.loaded:
                    self._on_gap()
                self.catch_up()

    async def ready(self) -> None:
        """Wait until the tail is known; raise Unavailable when the log cannot be read."""
        if not self.state.loaded:
            await self.sync()

    def catch_up(self) -> None:
        """Read the log in the background until that succeeds, however often it must be tried."""
        # A read that is under way may have found less than there is by now.
        self._behind = True
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.get_running_loop().create_task(self._catch_up())

    async def sync(self) -> None:
        """Read the log as it is after this call was made, once for all who ask meanwhile."""
        wanted = self._reads_begun + 1
        async with self._reading:
            # A read that was cancelled with its caller was done for nobody.
            if self._reads_done >= wanted:
                if self._read_failed:
                    raise Unavailable
                return
            self._reads_begun += 1
            before = self.state.position
            try:
                await self._read()
            except Unavailable:
                self._reads_done, self._read_failed = self._reads_begun, True
                raise
            self._reads_done, self._read_failed = self._reads_begun, False
            if self.state.position != before:
                self.wake()

    def wake(self) -> None:
        """Let every follower look again."""
        changed, self.changed = self.changed, asyncio.get_running_loop().create_future()
        if not changed.done():
            changed.set_result(None)

    async def close(self) -> None:
        """Stop reading."""
        await end(self._catching_up)

    async def _catch_up(self) -> None:
        while self._behind:
            self._behind = False
            try:
                await self.sync()
            except Unavailable:
                # Bounded by the tail's life; the subscriber's reconnect asks again as well.
                self._behind = True
                await asyncio.sleep(_RETRY_SECONDS)

    async def _read(self) -> None:
        if not self.state.loaded:
            await self._read_newest()
            return
        while True:
            known = self.state.position
            held = await self._log.read(self.session_id, known, _READ_ENTRIES)
            # Compared with what was asked: publications may have been quicker than the reply.
            if held.last == known:
                return
            if held.last.epoch != known.epoch or held.last < known or not held.entries:
                await self._read_newest()
                return
            if self.state.offer(held.entries, original=held.original) is Offered.HOLE:
                await self._read_newest()
                return
            if self.state.position >= held.last:
                return

    async def _read_newest(self) -> None:
        known = self.state.position
        (last,) = await self._log.tails([self.session_id])
        begin = BEFORE_ALL
        if last.seq >= self.state.max_entries:
            begin = Position(last.epoch, last.seq - self.state.max_entries)
        held = await self._log.read(self.session_id, begin, self.state.max_entries * 2)
        newest = held.entries[-1].position if held.entries else held.last
        now = self.state.position
        if now != known and now.epoch == newest.epoch and now >= newest:
            # Publications that follow on each other were quicker than the reply.
            return
        whole = begin == BEFORE_ALL and held.original
        self.state.reset(held.entries, newest, original=whole)


class Tails:
    """One tail per followed session, kept true by publications and a periodic comparison."""

    def __init__(
        self, log: SessionLog, subscriber: Subscriber, *, limits: TailLimits, metrics: Metrics
    ) -> None:
        """Take the log, and the subscription whose callbacks are ``published``/``subscribed``."""
        self._log = log
        self._subscriber = subscriber
        self._limits = limits
        self._metrics = metrics
        self._tails: dict[str, SessionTail] = {}
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._checking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the periodic comparison."""
        self._checking = asyncio.get_running_loop().create_task(self._check_periodically())

    async def close(self) -> None:
        """Let all tails go."""
        await end(self._checking)
        for handle in self._lingering.values():
            handle.cancel()
        for tail in list(self._tails.values()):
            await tail.close()
        self._tails.clear()

    def hold(self, session_id: str) -> SessionTail:
        """Give the session's tail, kept until it is released as often as it was held."""
        lingering = self._lingering.pop(session_id, None)
        if lingering is not None:
            lingering.cancel()
        tail = self._tails.get(session_id)
        if tail is None:
            tail = self._tails[session_id] = SessionTail(
                session_id,
                self._log,
                ring_entries=self._limits.ring_entries,
                on_gap=self._metrics.tail_gaps.inc,
            )
            self._subscriber.subscribe(keys.channel(session_id))
        tail.followers += 1
        return tail

    def release(self, tail: SessionTail) -> None:
        """Give a tail back."""
        tail.followers -= 1
        if tail.followers == 0:
            self._lingering[tail.session_id] = asyncio.get_running_loop().call_later(
                self._limits.linger_seconds, self._drop, tail
            )

    def published(self, channel: str, payload: bytes) -> None:
        """Take a publication from the subscription."""
        self._metrics.publications.inc()
        tail = self._of(channel)
        if tail is not None:
            tail.published(payload)

    def subscribed(self, channel: str) -> None:
        """Take a confirmation from the subscription."""
        tail = self._of(channel)
        if tail is not None:
            tail.subscribed()

    def wake_all(self) -> None:
        """Let every follower on the node look again."""
        for tail in self._tails.values():
            tail.wake()

    async def check(self) -> None:
        """Compare each tail with its log once; what differs is caught up in the background."""
        followed = [tail for tail in self._tails.values() if tail.followers and tail.state.loaded]
        for at in range(0, len(followed), _CHECK_SESSIONS):
            some = followed[at : at + _CHECK_SESSIONS]
            before = [tail.state.position for tail in some]
            positions = await self._log.tails([tail.session_id for tail in some])
            for tail, known, position in zip(some, before, positions, strict=True):
                # A tail that moved meanwhile is fed by publications; it is looked at next time.
                if position != known and tail.state.position == known:
                    tail.catch_up()
        self._metrics.tail_checks.inc()

    async def _check_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._limits.check_seconds)
            try:
                await self.check()
            except ChatError as failure:
                logger.warning("tail_check_failed", reason=failure.detail)

    def _of(self, channel: str) -> SessionTail | None:
        return self._tails.get(keys.session_of_channel(channel))

    def _drop(self, tail: SessionTail) -> None:
        self._lingering.pop(tail.session_id, None)
        if tail.followers == 0 and self._tails.get(tail.session_id) is tail:
            del self._tails[tail.session_id]
            self._subscriber.unsubscribe(keys.channel(tail.session_id))
            closing = asyncio.get_running_loop().create_task(tail.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
