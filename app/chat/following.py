"""Following a session: one tail per session on this node, and a cursor into it per connection.

A follower waits until the tail is ahead of its cursor, takes everything in between, and is sent
it in one frame. A slow one costs a cursor and nothing else: what the tail let go is read from the
log, what the log let go is replaced by the whole state.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from app.chat.full_content import FullContent
from app.db import sessions
from app.db.results import SessionState
from app.domain.caller import Caller
from app.domain.errors import NotFound, TooManyConnections, Unauthenticated, Unavailable
from app.domain.events import Entry, new_entry, tells_deletion
from app.domain.frames import (
    PROTOCOL_VERSION,
    Bye,
    ByeReason,
    Entries,
    Frame,
    Heartbeat,
    History,
    HistoryReason,
    Welcome,
)
from app.domain.messages import Message, Role
from app.domain.position import BEFORE_ALL, Position
from app.domain.resume import Unserved, judge

if TYPE_CHECKING:
    from app.chat.reading import Reading
    from app.chat.tails import SessionTail, Tails
    from app.db.engine import Database
    from app.streams.session_log import SessionLog
    from app.telemetry import Metrics

_FRAME_ENTRIES = 512
"""Entries in one frame at most, so that one write stays well under a megabyte."""

_RETRY_SECONDS = 1.0
"""How long a follower waits before it asks a part again that could not be reached."""

_BEGINNING_SECONDS = 3.0
_BEGINNING_LOOK_SECONDS = 0.2
"""How young a question is whose log has yet to begin, and how often one looks for it then."""

_DRAIN_SPREAD_MS = 500
"""Clients of a draining node come back spread over this time, not all in one moment."""


class FollowingLimits(NamedTuple):
    """What bounds one follower."""

    lifetime_seconds: float
    heartbeat_seconds: float
    connections_per_user: int


class PollAnswer(NamedTuple):
    """What a long poll found."""

    entries: Sequence[Entry]
    position: Position
    history: History | None


class Following:
    """All followers on this node."""

    def __init__(
        self,
        *,
        node_id: str,
        database: Database,
        log: SessionLog,
        tails: Tails,
        reading: Reading,
        limits: FollowingLimits,
        metrics: Metrics,
        is_revoked: Callable[[Caller], bool] = lambda _: False,
    ) -> None:
        """Take the parts and bounds, and what says whether a caller's credential was revoked."""
        self.node_id = node_id
        self.log = log
        self.tails = tails
        self.reading = reading
        self.limits = limits
        self.metrics = metrics
        self.is_revoked = is_revoked
        self.draining = False
        self._open: set[Follower] = set()
        self._database = database
        self._connections: Counter[str] = Counter()

    async def open(
        self,
        caller: Caller,
        session_id: str,
        after: Position | None,
        transport: str,
        *,
        full_content: bool = False,
    ) -> Follower:
        """Begin to follow; ``close`` must be called in any case.

        With ``full_content`` every chunk becomes a message with the whole text so far.

        Raises NotFound for a session that is not the caller's, TooManyConnections, and
        Unavailable when the database cannot be asked whose it is. The log may be away: a stream
        waits for it, since a stock EventSource never comes back after an error status.
        """
        if self._connections[caller.user_id] >= self.limits.connections_per_user:
            raise TooManyConnections
        # Counted before the first await, so that a burst cannot pass the limit together.
        self._connections[caller.user_id] += 1
        follower = Follower(self, caller, session_id, after, transport, full_content=full_content)
        self._open.add(follower)
        try:
            state = await sessions.session_state(
                self._database, user_id=caller.user_id, session_id=session_id
            )
            if state is SessionState.DELETED:
                follower.deleted = True
            else:
                follower.join(self.tails.hold(session_id))
        except BaseException:
            await follower.close()
            raise
        return follower

    def left(self, follower: Follower) -> None:
        """Free a connection's slot."""
        self._open.discard(follower)
        caller = follower.caller
        self._connections[caller.user_id] -= 1
        if self._connections[caller.user_id] <= 0:
            del self._connections[caller.user_id]

    def end_revoked(self) -> None:
        """Let the followers end whose credential was revoked."""
        for follower in self._open:
            if self.is_revoked(follower.caller):
                follower.wake()

    def drain(self) -> None:
        """Let every follower, present and to come, end with ``bye``."""
        self.draining = True
        self.tails.wake_all()


class Follower:
    """One connection's place in one session."""

    def __init__(
        self,
        following: Following,
        caller: Caller,
        session_id: str,
        after: Position | None,
        transport: str,
        *,
        full_content: bool,
    ) -> None:
        """Stand at ``after``; None asks for the whole state first."""
        self.deleted = False
        """Whether the session is gone, and there is nothing to follow."""
        self.caller = caller
        self._following = following
        self._session_id = session_id
        self._position = after
        self._transport = transport
        self._tail: SessionTail | None = None
        self._is_doubtful = False
        """Whether the tail may be of a log that is gone: the session is known as deleted and was
        restored, or the client stands at 0-0 because another node found no log any more."""
        self._is_unproven = after == BEFORE_ALL
        """Whether nobody knows yet if there was anything before a position of 0-0."""
        self._closed = False
        self._full = FullContent(self._whole_state) if full_content else None
        self._gauge = following.metrics.streams_open.labels(transport=transport)
        self._delivered = following.metrics.events_delivered.labels(transport=transport)
        self._gauge.inc()

    def join(self, tail: SessionTail) -> None:
        """Attach to the node's tail of the session."""
        self._tail = tail
        self._is_doubtful = tail.deleted or self._is_unproven

    def renew(self, caller: Caller) -> None:
        """Go on under a credential that ends later; it must be the same user's."""
        self.caller = caller

    def wake(self) -> None:
        """Let it look whether it is to end."""
        if self._tail is not None:
            self._tail.wake()

    async def close(self) -> None:
        """Give the connection's slot and the tail back; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._gauge.dec()
        self._following.left(self)
        if self._tail is not None:
            self._following.tails.release(self._tail)

    async def frames(self) -> AsyncIterator[Frame]:
        """Give Welcome, what was missed (or the whole state), then live; Bye last."""
        limits = self._following.limits
        yield Welcome(
            protocol=PROTOCOL_VERSION,
            session_id=self._session_id,
            node_id=self._following.node_id,
            transport=self._transport,
            heartbeat_seconds=limits.heartbeat_seconds,
        )
        ends = time.monotonic() + limits.lifetime_seconds * random.uniform(0.9, 1.1)  # noqa: S311
        while True:
            bye = self._reason_to_end(ends)
            if bye is not None:
                yield bye
                return
            try:
                frame = await self._next(min(limits.heartbeat_seconds, self._until_end(ends)))
            except NotFound:
                yield Bye(ByeReason.SESSION_DELETED, reconnect=False, after_ms=0)
                return
            except Unavailable:
                # The stream outlives its parts: the client keeps what it has until they are back.
                await asyncio.wait((self._held.changed,), timeout=_RETRY_SECONDS)
                frame = Heartbeat()
            if frame is None or self._is_ended():
                # What came while a credential ended is not its holder's to see.
                continue
            yield frame
            if isinstance(frame, Entries) and tells_deletion(frame.entries[-1]):
                yield Bye(ByeReason.SESSION_DELETED, reconnect=False, after_ms=0)
                return

    async def poll(self, wait_seconds: float) -> PollAnswer:
        """Give what there is after the position, or what comes first within ``wait_seconds``.

        Raises NotFound for a deleted session, Unavailable while the log cannot be read, and
        Unauthenticated when the credential ends meanwhile.
        """
        ends = time.monotonic() + wait_seconds
        while True:
            remaining = ends - time.monotonic()
            frame = await self._next(max(min(remaining, self._until_refused()), 0.0))
            if self._is_ended():
                raise Unauthenticated("the credential has expired or was revoked")
            if isinstance(frame, Entries):
                return PollAnswer(frame.entries, frame.position, None)
            if isinstance(frame, History):
                return PollAnswer((), Position.parse(frame.position), frame)
            if remaining <= 0 or self._following.draining:
                return PollAnswer((), self._position or BEFORE_ALL, None)

    async def _next(self, wait_seconds: float) -> Frame | None:
        """Give the next frame; Heartbeat after ``wait_seconds``, None to look around again.

        Raises NotFound for a deleted session, Unavailable while the log cannot be read.
        """
        frame = await self._next_of_log(wait_seconds)
        if self._full is None or frame is None:
            return frame
        return await self._full.convert(frame)

    async def _next_of_log(self, wait_seconds: float) -> Frame | None:
        tail = self._held
        # Nothing is judged by a tail that does not know the log yet.
        await tail.ready()
        if self._is_doubtful:
            # Told the end of the log before, a client would never come back; told the old log from
            # its first entry on, it would see again what the state that it has is made of.
            await tail.sync()
            self._is_doubtful = False
        if self._position is None:
            return await self._history(HistoryReason.INITIAL)
        changed = tail.changed
        found = tail.state.after(self._position, _FRAME_ENTRIES)
        if found is Unserved.UNKNOWN:
            # The cursor may come from a snapshot that is newer than what this node was told.
            await tail.sync()
            found = tail.state.after(self._position, _FRAME_ENTRIES)
        if tail.deleted and (isinstance(found, Unserved) or not found):
            # Its log is gone, and with it what led up to the deletion.
            raise NotFound
        if isinstance(found, Unserved):
            return await self._from_log(self._position)
        if found:
            return self._entries(found)
        if self._is_unproven:
            # No log: nothing was said, or it was lost. What is stored tells which.
            history = await self._whole_state(HistoryReason.EPOCH)
            if history.messages and _is_settled(history.messages[-1]):
                return self._replaced_by(await self._begun_again(history))
            if history.messages:
                # Between a question's commit and its entry in the log: the log is about to begin.
                await asyncio.wait((changed,), timeout=min(wait_seconds, _BEGINNING_LOOK_SECONDS))
                return None
            self._is_unproven = False
        return await self._wait_for(changed, wait_seconds)

    async def _wait_for(self, changed: asyncio.Future[None], wait_seconds: float) -> Frame | None:
        if self._following.draining or self._is_ended():
            # Its end may have been told while this read: before it knew what to wait for.
            return None
        done, _ = await asyncio.wait((changed,), timeout=wait_seconds)
        return None if done else Heartbeat()

    async def _from_log(self, position: Position) -> Frame | None:
        held = await self._following.log.read(self._session_id, position, _FRAME_ENTRIES)
        reason = judge(position, held.first, held.last, original=held.original)
        if reason is not None:
            return await self._history(reason)
        return self._entries(held.entries) if held.entries else None

    def _entries(self, entries: Sequence[Entry]) -> Entries:
        # A deletion ends the stream: what would follow belongs to nobody.
        for at, entry in enumerate(entries):
            if tells_deletion(entry):
                entries = entries[: at + 1]
                break
        frame = Entries(entries)
        self._is_unproven = False
        self._position = frame.position
        self._delivered.inc(len(entries))
        return frame

    async def _history(self, reason: HistoryReason) -> History:
        return self._replaced_by(await self._whole_state(reason))

    async def _begun_again(self, history: History) -> History:
        """Begin a lost log, so that who is shown the state has a position to come back with.

        A long poll from 0-0 would be answered with all of it each time, at once.
        """
        # A question never changes: told once more it does no harm, whatever happens meanwhile.
        asked = [message for message in history.messages if message.role is Role.USER]
        if not asked or history.position != str(BEFORE_ALL):
            return history
        entry = new_entry(asked[-1])
        await self._following.log.record(self._session_id, [entry], pristine=False)
        return await self._whole_state(HistoryReason.EPOCH)

    def _replaced_by(self, history: History) -> History:
        self._is_unproven = False
        self._position = Position.parse(history.position)
        self._following.metrics.histories.labels(reason=history.reason.value).inc()
        return history

    async def _whole_state(self, reason: HistoryReason = HistoryReason.INITIAL) -> History:
        page = await self._following.reading.whole(self._session_id, self.caller.user_id)
        if page.position == str(BEFORE_ALL) and self._held.state.position != BEFORE_ALL:
            # There was no log a moment ago, and this node's tail knows one: it has just begun, or
            # it was lost and the tail was not told. Then what the tail has, from the first entry
            # on, is of the old log, and after 0-0 all of that would be told again.
            await self._held.sync()
        return History(page.items, page.position, reason)

    def _reason_to_end(self, ends: float) -> Bye | None:
        if self._following.draining:
            spread = random.randrange(_DRAIN_SPREAD_MS)  # noqa: S311
            return Bye(ByeReason.DRAIN, reconnect=True, after_ms=spread)
        if self._is_ended():
            return Bye(ByeReason.TOKEN_EXPIRED, reconnect=False, after_ms=0)
        if time.monotonic() >= ends or self._has_expired():
            return Bye(ByeReason.LIFETIME, reconnect=True, after_ms=0)
        return None

    def _is_ended(self) -> bool:
        """Say whether the credential was revoked, or has expired for good."""
        if self._following.is_revoked(self.caller):
            return True
        # A cookie is renewed when its browser comes back, if the sign-in has not ended meanwhile.
        return self.caller.credential != "cookie" and self._has_expired()

    def _has_expired(self) -> bool:
        expires_at = self.caller.expires_at
        return expires_at is not None and time.time() >= expires_at

    def _until_refused(self) -> float:
        if self.caller.expires_at is None or self.caller.credential == "cookie":
            return math.inf
        return self.caller.expires_at - time.time()

    def _until_end(self, ends: float) -> float:
        remaining = ends - time.monotonic()
        if self.caller.expires_at is not None:
            remaining = min(remaining, self.caller.expires_at - time.time())
        return max(remaining, 0.001)

    @property
    def _held(self) -> SessionTail:
        if self._tail is None:
            raise NotFound
        return self._tail


def _is_settled(message: Message) -> bool:
    said = datetime.fromisoformat(message.created_at)
    # One that was said in the future was said by the clock of another node. It is shown now: who
    # waits until it is past waits for as long as the two clocks differ.
    return abs((datetime.now(UTC) - said).total_seconds()) > _BEGINNING_SECONDS
