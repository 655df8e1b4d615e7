"""The session log in Redis: each method of ``SessionLog`` as one Lua script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from hiredis import HiredisError
from redis.asyncio import Redis

from app.domain.events import Entry, NewEntry
from app.domain.lease import Lease
from app.domain.position import BEFORE_ALL, Position
from app.streams import keys, scripts
from app.streams.connection import pipe_of, reachable
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

_SERVER_AWAY = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY ",
    "OOM",
    "MISCONF",  # its disk is full: it takes no writes until its file can be written again
    "NOREPLICAS",
)
"""Errors that are the server's state and not one session's: they pass."""

logger = structlog.get_logger(__name__)


class RedisSessionLog:
    """``SessionLog`` on one Redis or Valkey server."""

    def __init__(self, redis: Redis, *, ttl_seconds: int, max_entries: int) -> None:
        """Keep each log ``ttl_seconds`` after its last write, at ``max_entries`` or a little more.

        Entries beyond that go from the front: their readers are given the whole state instead.
        """
        self._redis = redis
        self._pipe = pipe_of(redis)
        self._ttl_ms = ttl_seconds * 1000
        self._max_entries = max_entries
        self._submit = scripts.load("submit")
        self._record = scripts.load("record")
        self._claim = scripts.load("claim")
        self._start = scripts.load("start")
        self._append = scripts.load("append")
        self._renew = scripts.load("renew")
        self._finish = scripts.load("finish")
        self._release = scripts.load("release")
        self._cancel = scripts.load("cancel")
        self._snapshot = scripts.load("snapshot")
        self._read = scripts.load("read")
        self._delete = scripts.load("delete")

    def close(self) -> None:
        """End the log's own connection; the client is its maker's."""
        self._pipe.close()

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
        position, untold = await self._run(
            self._submit,
            [*_writing(session_id), keys.cancel(session_id, message_id)],
            message_id,
            attempt,
            int(pristine),
            self._ttl_ms,
            self._max_entries,
            kept,
            kept_reasoning,
            len(entries),
            *_flat(entries),
        )
        return Submitted(_position(position), untold.decode() or None)

    async def record(
        self, session_id: str, entries: Sequence[NewEntry], *, pristine: bool
    ) -> Position:
        """See ``SessionLog.record``."""
        reply = await self._run(
            self._record,
            [keys.log(session_id), keys.active(session_id)],
            int(pristine),
            self._ttl_ms,
            self._max_entries,
            len(entries),
            *_flat(entries),
        )
        return _position(reply)

    async def claim(
        self, session_id: str, message_id: str, node_id: str, ttl_ms: int
    ) -> Claimed | Held:
        """See ``SessionLog.claim``."""
        outcome, value, *known = await self._run(
            self._claim,
            [
                keys.owner(session_id),
                keys.token(session_id),
                keys.active(session_id),
                keys.partial(session_id),
                keys.reasoning(session_id),
            ],
            node_id,
            message_id,
            ttl_ms,
            self._ttl_ms,
        )
        if outcome == b"HELD":
            return Held(max(int(value), 0))
        active = (
            ActiveAnswer(
                message_id, int(known[0]), int(known[1]), known[2].decode(), known[3].decode()
            )
            if known
            else None
        )
        return Claimed(Lease(session_id, node_id, int(value)), active)

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
        reply = await self._run(
            self._start,
            _writing(lease.session_id),
            lease.owner,
            message_id,
            attempt,
            kept,
            kept_reasoning,
            self._ttl_ms,
            self._max_entries,
            len(entries_if_unknown),
            len(entries),
            *_flat(entries_if_unknown),
            *_flat(entries),
        )
        return AppendOutcome(reply.decode())

    async def append(self, batches: Sequence[AppendBatch]) -> list[AppendOutcome]:
        """See ``SessionLog.append``."""
        return await self._run_all(
            [
                scripts.Call(
                    self._append,
                    [
                        *_writing(batch.lease.session_id),
                        keys.cancel(batch.lease.session_id, batch.message_id),
                    ],
                    [
                        batch.lease.owner,
                        batch.message_id,
                        batch.attempt,
                        batch.first_index,
                        self._ttl_ms,
                        self._max_entries,
                        batch.text,
                        batch.reasoning,
                        *_flat(batch.entries),
                    ],
                )
                for batch in batches
            ]
        )

    async def renew(
        self, leases: Sequence[tuple[Lease, str, int]], ttl_ms: int
    ) -> list[AppendOutcome]:
        """See ``SessionLog.renew``."""
        return await self._run_all(
            [
                scripts.Call(
                    self._renew,
                    [
                        *_writing(lease.session_id),
                        keys.token(lease.session_id),
                        keys.cancel(lease.session_id, message_id),
                    ],
                    [lease.owner, attempt, ttl_ms, self._ttl_ms],
                )
                for lease, message_id, attempt in leases
            ]
        )

    async def finish(
        self, lease: Lease, message_id: str, attempt: int, entry: NewEntry
    ) -> AppendOutcome:
        """See ``SessionLog.finish``."""
        reply = await self._run(
            self._finish,
            [*_writing(lease.session_id), keys.cancel(lease.session_id, message_id)],
            lease.owner,
            message_id,
            attempt,
            entry.data,
            self._ttl_ms,
            self._max_entries,
        )
        return AppendOutcome(reply.decode())

    async def release(self, lease: Lease) -> None:
        """See ``SessionLog.release``."""
        await self._run(self._release, [keys.owner(lease.session_id)], lease.owner)

    async def cancel(self, session_id: str, message_id: str, attempt: int) -> str | None:
        """See ``SessionLog.cancel``."""
        reply = await self._run(
            self._cancel,
            [keys.cancel(session_id, message_id), keys.owner(session_id)],
            session_id,
            message_id,
            attempt,
            self._ttl_ms,
            keys.worker_channel(""),
        )
        return None if reply is None else reply.decode()

    async def snapshot(self, session_id: str) -> Snapshot:
        """See ``SessionLog.snapshot``."""
        position, message_id, attempt, index, text, reasoning = await self._run(
            self._snapshot,
            [
                keys.log(session_id),
                keys.active(session_id),
                keys.partial(session_id),
                keys.reasoning(session_id),
            ],
        )
        if message_id is None:
            return Snapshot(_position(position), None)
        active = ActiveAnswer(
            message_id.decode(), int(attempt), int(index), text.decode(), reasoning.decode()
        )
        return Snapshot(_position(position), active)

    async def read(self, session_id: str, after: Position, limit: int) -> LogRange:
        """See ``SessionLog.read``."""
        last, *held = await self._run(
            self._read, [keys.log(session_id)], after.epoch, after.seq, limit
        )
        if not held:
            return LogRange([], None, BEFORE_ALL, original=False)
        first, original, entries = held
        return LogRange(
            [_entry(written, fields) for written, fields in entries],
            _position(first),
            _position(last),
            original=original == 1,
        )

    async def tails(self, session_ids: Sequence[str]) -> list[Position]:
        """See ``SessionLog.tails``."""
        pipeline = self._redis.pipeline(transaction=False)
        for session_id in session_ids:
            pipeline.execute_command("XREVRANGE", keys.log(session_id), "+", "-", "COUNT", 1)
        with reachable():
            replies = await pipeline.execute()
        return [_position(newest[0][0]) if newest else BEFORE_ALL for newest in replies]

    async def delete(self, session_id: str, entry: NewEntry) -> None:
        """See ``SessionLog.delete``."""
        touched = [*_writing(session_id), keys.cache(session_id)]
        await self._run(self._delete, touched, entry.data, self._max_entries)

    async def _run(
        self, script: scripts.Script, touched: Sequence[str], *arguments: scripts.Argument
    ) -> Any:
        with reachable():
            return await scripts.run(self._redis, script, touched, *arguments)

    async def _run_all(self, calls: Sequence[scripts.Call]) -> list[AppendOutcome]:
        with reachable():
            replies = await scripts.run_all(self._pipe, calls)
            for reply in replies:
                if isinstance(reply, HiredisError) and str(reply).startswith(_SERVER_AWAY):
                    # Every call is safe to send again, so the whole flush is.
                    raise reply
        return [_outcome(reply) for reply in replies]


def _outcome(reply: Any) -> AppendOutcome:
    if isinstance(reply, HiredisError):
        # One session's keys are not as they should be. The others must not wait for it: its
        # worker claims it again and leaves the job if that fails too.
        logger.error("session_log_refused", reason=str(reply))
        return AppendOutcome.LOST
    return AppendOutcome(reply.decode())


def _writing(session_id: str) -> list[str]:
    return [
        keys.log(session_id),
        keys.owner(session_id),
        keys.active(session_id),
        keys.partial(session_id),
        keys.reasoning(session_id),
    ]


def _flat(entries: Sequence[NewEntry]) -> list[str | bytes]:
    return [part for entry in entries for part in entry]


def _position(written: bytes) -> Position:
    epoch, seq = written.split(b"-")
    return Position(int(epoch), int(seq))


def _entry(written: bytes, fields: list[bytes]) -> Entry:
    # Fields stand in the order in which log.lua writes them: type, data.
    return Entry(_position(written), fields[1].decode(), fields[3])
