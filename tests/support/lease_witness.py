"""Stands before a session log, sees each call that reaches it, and judges what it did.

It keeps account of what each attempt was let say, in the order in which it was accepted, and holds
the log to the rules of ``docs/decisions/0009-lease-and-log-protocol.md`` one call at a time. So a
fence that is missing is found where it is missing, also where another stands behind it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, cast

from app.domain.events import Entry, EventType
from app.domain.lease import Lease
from app.domain.position import BEFORE_ALL, Position
from app.streams.memory_log import MemorySessionLog
from app.streams.session_log import (
    ActiveAnswer,
    AppendBatch,
    AppendOutcome,
    Claimed,
    Held,
    SessionLog,
)

_ALL = 100_000
_REMEMBERED_STATES = 12


class _Seen(NamedTuple):
    """What a log and its snapshot hold."""

    entries: list[Entry]
    last: Position
    active: ActiveAnswer | None


class Witness:
    """One session's log, with everything noted that was accepted."""

    def __init__(
        self,
        log: SessionLog,
        session_id: str,
        *,
        continues: bool,
        clock: Callable[[], float] | None,
    ) -> None:
        """Judge ``log``.

        ``continues`` tells whether attempts go on from text. ``clock`` gives the seconds by which
        leases end; None where they end by a clock that is not the test's, and when is not judged.
        """
        self.said: dict[tuple[str, int], str] = {}
        """What the log has of each attempt, with what it kept of those before."""
        self.newest: dict[str, int] = {}
        """The last attempt at each answer that began in the log."""
        self.lost = False
        """Whether the log lost anything since an attempt began in it."""
        self._log = log
        self._session_id = session_id
        self._continues = continues
        self._clock = clock
        self._token = self._last_token = 0
        self._holder: tuple[Lease, float] | None = None
        self._entries: dict[tuple[str, int], int] = {}
        self._chunks: dict[tuple[str, int], int] = {}
        self._last_batch: dict[tuple[str, int], AppendBatch] = {}
        self._stops: dict[str, int] = {}
        """For each answer the last attempt that a stop in force is meant for."""
        self._requested: dict[str, int] = {}
        """Likewise, with the stops that were lost."""
        self._given: dict[Position, Entry] = {}
        self._states: list[Any] = []

    @property
    def log(self) -> SessionLog:
        """This, as what it stands for."""
        return cast("SessionLog", self)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method: Callable[..., Awaitable[Any]] = getattr(self._log, name)
        return method

    def was_said(self, message_id: str, text: str) -> bool:
        """Say whether the log ever had this text, or a longer one, of an answer."""
        known = [said for (answer, _), said in self.said.items() if answer == message_id]
        return text == "" or any(said.startswith(text) for said in known)

    # What may happen to a log.

    def lease_ended(self) -> None:
        """Note that nobody holds the lease any more."""
        self._holder = None

    def forgot(self, *, everything: bool) -> None:
        """Note that the log was lost, and perhaps leases and stops with it."""
        self.lost = True
        self._states.clear()
        if everything:
            self._holder = None
            self._stops.clear()

    def go_back(self, steps: int) -> None:
        """Let a log in memory be as it was some writes ago, as a server that lost its file's end.

        What is asked of it from then on must not give out a position for a second text.
        """
        if not isinstance(self._log, MemorySessionLog) or not self._states:
            return
        self._log._sessions = self._states[max(-1 - steps, -len(self._states))]
        self.lost = True
        self._stops.clear()
        self._states.clear()
        # Who holds the lease is as the file has it; so may be one who had lost it.
        self._holder = None
        held = self._log._session(self._session_id).holder
        if held is not None:
            self._holder = held
            self._token = held.lease.token

    # Calls that are judged.

    async def submit(self, *arguments: Any, **named: Any) -> Any:
        found = await self._log.submit(*arguments, **named)
        await self._look()
        return found

    async def record(self, *arguments: Any, **named: Any) -> Any:
        found = await self._log.record(*arguments, **named)
        await self._look()
        return found

    async def claim(
        self, session_id: str, message_id: str, node_id: str, ttl_ms: int
    ) -> Claimed | Held:
        before = await self._look()
        found = await self._log.claim(session_id, message_id, node_id, ttl_ms)
        after = await self._look()
        assert after == before, "a claim changed the log"
        if isinstance(found, Held):
            return found
        holder = self._held_by()
        assert holder is None or holder.node_id == node_id, f"{node_id} took what {holder} holds"
        assert found.lease.token > self._last_token, "a lease's token did not grow"
        known = before.active if before.active and before.active.message_id == message_id else None
        assert found.active == known, f"told of {found.active} for {known}"
        self._token = self._last_token = found.lease.token
        self._hold(found.lease, ttl_ms)
        return found

    async def renew(self, leases: Sequence[tuple[Lease, str, int]], ttl_ms: int) -> Any:
        outcomes = await self._log.renew(leases, ttl_ms)
        for (lease, message_id, attempt), outcome in zip(leases, outcomes, strict=True):
            if outcome in {AppendOutcome.OK, AppendOutcome.CANCELLED}:
                self._may_write(lease)
                self._hold(lease, ttl_ms)
            self._may_be_stopped(outcome, message_id, attempt)
        return outcomes

    async def release(self, lease: Lease) -> None:
        await self._log.release(lease)
        if lease.token == self._token:
            self._holder = None

    async def cancel(self, session_id: str, message_id: str, attempt: int) -> str | None:
        owner = await self._log.cancel(session_id, message_id, attempt)
        for stops in (self._stops, self._requested):
            stops[message_id] = max(attempt, stops.get(message_id, attempt))
        return owner

    async def start(
        self, lease: Lease, message_id: str, attempt: int, *, kept: str, **named: Any
    ) -> AppendOutcome:
        before = await self._look()
        outcome = await self._log.start(lease, message_id, attempt, kept=kept, **named)
        after = await self._look()
        if outcome is not AppendOutcome.OK:
            assert after == before, "a start that was refused changed the log"
            return outcome
        self._may_write(lease)
        if after == before:
            assert (message_id, attempt) in self.said, "an attempt that never began, began before"
            return outcome
        assert self.lost or (message_id, attempt) not in self.said, "an attempt began twice"
        assert attempt > self.newest.get(message_id, 0) or self.lost, "an old attempt began"
        self._may_keep(before.active, message_id, attempt, kept)
        last = json.loads(after.entries[-1].data)
        told = (last["message_id"], last["attempt"], last["content"])
        assert told == (message_id, attempt, kept), f"{told} is told for {message_id} {kept!r}"
        assert after.active is not None
        assert after.active[:4] == (message_id, attempt, 0, kept), f"{after.active} has begun"
        self.newest[message_id] = attempt
        self.said[message_id, attempt] = kept
        self._entries[message_id, attempt] = self._chunks[message_id, attempt] = 0
        self.lost = False
        self._last_batch.pop((message_id, attempt), None)
        return outcome

    async def append(self, batches: Sequence[AppendBatch]) -> list[AppendOutcome]:
        return [await self._append(batch) for batch in batches]

    async def finish(
        self, lease: Lease, message_id: str, attempt: int, entry: Any
    ) -> AppendOutcome:
        before = await self._look()
        outcome = await self._log.finish(lease, message_id, attempt, entry)
        after = await self._look()
        if outcome is not AppendOutcome.OK:
            assert after == before, "an end that was refused changed the log"
            return outcome
        self._may_write(lease)
        assert after.entries[-1].data == entry.data, "another end was told"
        assert after.last > before.last, "an end was told at an old position"
        active = before.active
        if active is not None and (active.message_id != message_id or active.attempt > attempt):
            assert after.active == active, "an end took the next answer with it"
        self._holder = None
        return outcome

    # The rules.

    async def _append(self, batch: AppendBatch) -> AppendOutcome:
        before = await self._look()
        [outcome] = await self._log.append([batch])
        after = await self._look()
        which = batch.message_id, batch.attempt
        self._may_be_stopped(outcome, *which)
        if outcome is not AppendOutcome.OK:
            assert after == before, "a batch that was refused changed the log"
            return outcome
        self._may_write(batch.lease)
        if after == before:
            assert self._last_batch.get(which) == batch, f"{batch} is not what was written last"
            return outcome
        assert batch.attempt > self._stops.get(batch.message_id, -1), "written after its stop"
        if not self.lost:
            assert which[1] == self.newest.get(which[0]), f"an old attempt wrote: {batch}"
            assert batch.first_index == self._entries[which], f"not its turn: {batch}"
        appended = [entry for entry in after.entries if entry.position > before.last]
        assert [(entry.type, entry.data) for entry in appended] == list(batch.entries)
        text = before.active.text if before.active is not None else ""
        self._chunks_fit(which, batch, text)
        self._entries[which] = batch.first_index + len(batch.entries)
        self._last_batch[which] = batch
        self.said[which] = text + batch.text
        assert after.active is not None
        assert after.active.text == self.said[which], f"{after.active} is not what was said"
        return outcome

    def _chunks_fit(self, which: tuple[str, int], batch: AppendBatch, text: str) -> None:
        for entry in batch.entries:
            if entry.type != EventType.CHUNK:
                continue
            chunk = json.loads(entry.data)
            assert (chunk["message_id"], chunk["attempt"]) == which, f"{chunk} of {which}"
            assert chunk["offset"] == len(text), f"{chunk} after {text!r}"
            assert self.lost or chunk["index"] == self._chunks[which], f"{chunk} out of its turn"
            self._chunks[which] = chunk["index"] + 1
            text += chunk["chunk"]

    def _may_keep(
        self, active: ActiveAnswer | None, message_id: str, attempt: int, kept: str
    ) -> None:
        """Fail where an attempt goes on from anything but what the last one had said."""
        last = self.said.get((message_id, self.newest.get(message_id, 0)), "")
        told = f"attempt {attempt} goes on from {kept!r}, said was {last!r}"
        assert kept in {"", last} or (self.lost and self.was_said(message_id, kept)), told
        if self._continues and not self.lost and active and active.message_id == message_id:
            assert kept == active.text, f"{told}, the log has {active.text!r}"

    def _may_be_stopped(self, outcome: AppendOutcome, message_id: str, attempt: int) -> None:
        if outcome is AppendOutcome.CANCELLED:
            meant = self._requested.get(message_id, -1)
            assert attempt <= meant, f"attempt {attempt} was stopped by a stop of {meant}"

    def _remember(self, log: MemorySessionLog) -> None:
        """Keep a copy of what the log holds; its entries are never changed."""
        sessions = {
            session_id: dataclasses.replace(
                session,
                entries=list(session.entries),
                active=copy.copy(session.active),
                stops=dict(session.stops),
            )
            for session_id, session in log._sessions.items()
        }
        if not self._states or sessions != self._states[-1]:
            self._states.append(sessions)
            del self._states[:-_REMEMBERED_STATES]

    def _may_write(self, lease: Lease) -> None:
        assert lease.token == self._token, f"{lease} wrote, {self._token} is the last token"
        if self._clock is not None and not self.lost:
            assert self._held_by() == lease, f"{lease} wrote, {self._holder} holds the session"

    def _held_by(self) -> Lease | None:
        if self._holder is None or self._clock is None:
            return None
        lease, until = self._holder
        return lease if until > self._clock() else None

    def _hold(self, lease: Lease, ttl_ms: int) -> None:
        if self._clock is not None:
            self._holder = lease, self._clock() + ttl_ms / 1000

    async def _look(self) -> _Seen:
        """Read it all; fail where it has a hole or a position that had stood for something else."""
        held = await self._log.read(self._session_id, BEFORE_ALL, _ALL)
        for before, after in zip(held.entries, held.entries[1:], strict=False):
            assert after.position == before.position.plus(1), f"{after} follows {before}"
        for entry in held.entries:
            given = self._given.setdefault(entry.position, entry)
            assert given == entry, f"one position stands for two entries: {given}, {entry}"
        snapshot = await self._log.snapshot(self._session_id)
        assert snapshot.position == held.last, f"{snapshot} at {held.last}"
        if isinstance(self._log, MemorySessionLog):
            self._remember(self._log)
        return _Seen(held.entries, held.last, snapshot.active)
