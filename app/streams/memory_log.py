"""The session log in memory, without a server: for tests of what stands above the log.

Differs from ``redis_log`` in what a test wants to decide itself: nothing but leases expires, and
time is what the clocks say. Losing keys and restarting the server are methods.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from app.domain.events import Entry, NewEntry
from app.domain.lease import Lease
from app.domain.position import BEFORE_ALL, Position
from app.streams.session_log import (
    ActiveAnswer,
    AppendBatch,
    AppendOutcome,
    Claimed,
    Held,
    LogRange,
    Snapshot,
    Submitted,
)


class _Holder(NamedTuple):
    lease: Lease
    until: float


@dataclasses.dataclass
class _Active:
    message_id: str
    attempt: int
    turn: Position | None
    index: int = 0


@dataclasses.dataclass
class _Session:
    entries: list[Entry] = dataclasses.field(default_factory=list)
    original: bool = False
    """Whether the first of ``entries`` is the first that the session ever had."""
    holder: _Holder | None = None
    active: _Active | None = None
    run: int | None = None
    """The server's run in which the last turn was begun."""
    partial: str = ""
    reasoning: str = ""
    stops: dict[str, int] = dataclasses.field(default_factory=dict)
    """For each answer that is to be stopped: the last attempt that this was meant for."""

    @property
    def tail(self) -> Position | None:
        return self.entries[-1].position if self.entries else None

    def knows(self, message_id: str) -> _Active | None:
        if self.active is not None and self.active.message_id == message_id:
            return self.active
        return None


class MemorySessionLog:
    """``SessionLog`` in this process; the outcome of each method is that of its Lua script."""

    def __init__(
        self,
        *,
        max_entries: int,
        clock: Callable[[], float],
        epoch_clock: Callable[[], int],
        on_publish: Callable[[str, bytes], None] = lambda _session_id, _payload: None,
        on_stop: Callable[[str, str, str, int], None] = lambda *_: None,
    ) -> None:
        """Keep at most ``max_entries`` in each log; those beyond go from the front.

        ``clock`` gives the seconds by which leases end. ``epoch_clock`` stands for the server's
        clock in ms: a log begun anew takes its value, so it must be larger at each call.
        ``on_publish(session_id, payload)`` is called with what ``publication`` parses;
        ``on_stop(node_id, session_id, message_id, attempt)`` tells an owner of a stop.
        """
        self._max_entries = max_entries
        self._clock = clock
        self._epoch_clock = epoch_clock
        self._on_publish = on_publish
        self._on_stop = on_stop
        self._sessions: dict[str, _Session] = {}
        self._last_token = 0
        self._run = 1

    def lose_everything(self) -> None:
        """Forget all, as FLUSHALL does; tokens go on growing, as the server's clock does."""
        self._sessions.clear()

    def lose_log(self, session_id: str) -> None:
        """Forget a session's entries and nothing else of it."""
        self._session(session_id).entries.clear()

    def restart(self) -> None:
        """Be another run of the server, which may have lost the end of any log."""
        self._run += 1

    async def submit(
        self,
        session_id: str,
        message_id: str,
        attempt: int,
        entries: Sequence[NewEntry],
        *,
        kept: str = "",
        kept_reasoning: str = "",
        pristine: bool,
    ) -> Submitted:
        """See ``SessionLog.submit``."""
        session = self._session(session_id)
        known = session.knows(message_id)
        if known is not None and known.attempt >= attempt:
            # Sent again after a lost reply, or a worker was faster than this node.
            return Submitted(session.tail or BEFORE_ALL, None)
        untold = None
        if session.active is not None and session.active.message_id != message_id:
            untold = session.active.message_id
        before = session.tail
        position = self._write(
            session_id,
            entries,
            pristine=pristine,
            anew=before is not None and self._restarted(session),
        )
        session.partial, session.reasoning = kept, kept_reasoning
        if session.stops.get(message_id, -1) < attempt:
            session.stops.pop(message_id, None)
        turn = position if entries else before
        session.active = _Active(message_id, attempt, turn)
        if entries or before is None or session.run is None:
            session.run = self._run
        return Submitted(position, untold)

    async def record(
        self, session_id: str, entries: Sequence[NewEntry], *, pristine: bool
    ) -> Position:
        """See ``SessionLog.record``."""
        session = self._session(session_id)
        before = session.tail
        anew = before is not None and self._restarted(session)
        position = self._write(session_id, entries, pristine=pristine, anew=anew)
        if anew or before is None:
            session.run = self._run
        return position

    async def claim(
        self, session_id: str, message_id: str, node_id: str, ttl_ms: int
    ) -> Claimed | Held:
        """See ``SessionLog.claim``."""
        session = self._session(session_id)
        held = self._holder(session)
        if held is not None and held.lease.node_id != node_id:
            return Held(int((held.until - self._clock()) * 1000))
        self._last_token += 1
        lease = Lease(session_id, node_id, self._last_token)
        session.holder = _Holder(lease, self._clock() + ttl_ms / 1000)
        return Claimed(lease, _shown(session) if session.knows(message_id) else None)

    async def start(
        self,
        lease: Lease,
        message_id: str,
        attempt: int,
        *,
        kept: str,
        kept_reasoning: str = "",
        entries: Sequence[NewEntry],
        entries_if_unknown: Sequence[NewEntry],
    ) -> AppendOutcome:
        """See ``SessionLog.start``."""
        session = self._session(lease.session_id)
        if refused := self._refused(session, lease):
            return refused
        known = session.knows(message_id)
        if known is not None and known.attempt == attempt:
            return AppendOutcome.OK
        before = session.tail
        if known is None or before is None:
            entries = [*entries_if_unknown, *entries]
        # The server was restarted since the log was written to and may have lost its end: clients
        # that have seen it must not take new entries for the ones that they have.
        self._write(lease.session_id, entries, anew=self._restarted(session))
        turn = known.turn if known is not None else before
        session.active = _Active(message_id, attempt, turn)
        session.run = self._run
        session.partial, session.reasoning = kept, kept_reasoning
        return AppendOutcome.OK

    async def append(self, batches: Sequence[AppendBatch]) -> list[AppendOutcome]:
        """See ``SessionLog.append``."""
        return [self._append(batch) for batch in batches]

    async def renew(
        self, leases: Sequence[tuple[Lease, str, int]], ttl_ms: int
    ) -> list[AppendOutcome]:
        """See ``SessionLog.renew``."""
        return [self._renew(*renewed, ttl_ms) for renewed in leases]

    async def finish(
        self, lease: Lease, message_id: str, attempt: int, entry: NewEntry
    ) -> AppendOutcome:
        """See ``SessionLog.finish``."""
        session = self._session(lease.session_id)
        if refused := self._refused(session, lease):
            return refused
        if anew := self._restarted(session):
            session.run = self._run
        self._write(lease.session_id, [entry], anew=anew)
        known = session.knows(message_id)
        if known is not None and known.attempt <= attempt:
            if known.turn is not None:
                self._trim(session, known.turn)
            self._end_answer(session)
        if session.stops.get(message_id, -1) <= attempt:
            session.stops.pop(message_id, None)
        session.holder = None
        return AppendOutcome.OK

    async def release(self, lease: Lease) -> None:
        """See ``SessionLog.release``."""
        session = self._session(lease.session_id)
        if self._refused(session, lease) is None:
            session.holder = None

    async def cancel(self, session_id: str, message_id: str, attempt: int) -> str | None:
        """See ``SessionLog.cancel``."""
        session = self._session(session_id)
        session.stops[message_id] = max(attempt, session.stops.get(message_id, attempt))
        held = self._holder(session)
        if held is None:
            return None
        self._on_stop(held.lease.node_id, session_id, message_id, attempt)
        return held.lease.node_id

    async def snapshot(self, session_id: str) -> Snapshot:
        """See ``SessionLog.snapshot``."""
        session = self._session(session_id)
        return Snapshot(session.tail or BEFORE_ALL, _shown(session))

    async def read(self, session_id: str, after: Position, limit: int) -> LogRange:
        """See ``SessionLog.read``."""
        session = self._session(session_id)
        last = session.tail
        if last is None:
            return LogRange([], None, BEFORE_ALL, original=False)
        from_start = after.epoch != last.epoch
        found = [entry for entry in session.entries if from_start or entry.position > after]
        return LogRange(found[:limit], session.entries[0].position, last, original=session.original)

    async def tails(self, session_ids: Sequence[str]) -> list[Position]:
        """See ``SessionLog.tails``."""
        return [self._session(session_id).tail or BEFORE_ALL for session_id in session_ids]

    async def delete(self, session_id: str, entry: NewEntry) -> None:
        """See ``SessionLog.delete``."""
        session = self._session(session_id)
        self._write(session_id, [entry])
        session.entries.clear()
        session.holder = None
        session.run = None
        self._end_answer(session)

    def _session(self, session_id: str) -> _Session:
        return self._sessions.setdefault(session_id, _Session())

    def _holder(self, session: _Session) -> _Holder | None:
        held = session.holder
        return held if held is not None and held.until > self._clock() else None

    def _restarted(self, session: _Session) -> bool:
        return session.run is not None and session.run != self._run

    def _refused(self, session: _Session, lease: Lease) -> AppendOutcome | None:
        held = self._holder(session)
        if held is None:
            return AppendOutcome.LOST
        return None if held.lease == lease else AppendOutcome.SUPERSEDED

    def _append(self, batch: AppendBatch) -> AppendOutcome:
        session = self._session(batch.lease.session_id)
        if refused := self._refused(session, batch.lease):
            return refused
        active = session.knows(batch.message_id)
        if active is None or active.attempt != batch.attempt or session.tail is None:
            return AppendOutcome.LOST
        following = batch.first_index + len(batch.entries)
        if active.index == following:
            # Sent again after a lost reply: it was applied, whatever has been requested since.
            return AppendOutcome.OK
        if active.index != batch.first_index:
            return AppendOutcome.LOST
        if session.stops.get(batch.message_id, -1) >= batch.attempt:
            return AppendOutcome.CANCELLED
        self._write(batch.lease.session_id, batch.entries)
        session.partial += batch.text
        session.reasoning += batch.reasoning
        active.index = following
        return AppendOutcome.OK

    def _renew(self, lease: Lease, message_id: str, attempt: int, ttl_ms: int) -> AppendOutcome:
        session = self._session(lease.session_id)
        if refused := self._refused(session, lease):
            return refused
        session.holder = _Holder(lease, self._clock() + ttl_ms / 1000)
        if session.stops.get(message_id, -1) >= attempt:
            return AppendOutcome.CANCELLED
        return AppendOutcome.OK

    def _write(
        self,
        session_id: str,
        entries: Sequence[NewEntry],
        *,
        pristine: bool = False,
        anew: bool = False,
    ) -> Position:
        """Append and publish as ``log.lua`` does; give the position of the log's last entry."""
        session = self._session(session_id)
        newest = session.tail
        if not entries:
            return newest or BEFORE_ALL
        if newest is None or anew:
            floor = newest.epoch + 1 if newest is not None else 1
            first = Position(max(self._epoch_clock(), floor), 0)
            session.entries.clear()
            session.original = pristine and newest is None
        else:
            first = newest.plus(1)
        written = [
            Entry(first.plus(number), type_, data) for number, (type_, data) in enumerate(entries)
        ]
        session.entries.extend(written)
        if len(session.entries) > self._max_entries:
            self._trim(session, session.entries[-self._max_entries].position)
        head = f"{first} original" if newest is None and pristine else str(first)
        lines = [entry.type.encode() + b" " + entry.data for entry in written]
        self._on_publish(session_id, b"\n".join([head.encode(), *lines]))
        return written[-1].position

    def _trim(self, session: _Session, first: Position) -> None:
        kept = [entry for entry in session.entries if entry.position >= first]
        session.original = session.original and len(kept) == len(session.entries)
        session.entries = kept

    def _end_answer(self, session: _Session) -> None:
        session.active = None
        session.partial = session.reasoning = ""


def _shown(session: _Session) -> ActiveAnswer | None:
    active = session.active
    if active is None:
        return None
    return ActiveAnswer(
        active.message_id, active.attempt, active.index, session.partial, session.reasoning
    )
