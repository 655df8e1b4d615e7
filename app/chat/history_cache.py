"""Two tiers of copies before the database: L1 in this process, L2 in Redis for all nodes.

A copy is found under the session's id and the version that its row had when the reader asked for
leave to read it (``history.version``). Every transaction that changes what a settled session holds
counts the version up, so the row says which copy is the right one, and no copy can be stale: not
on another node, not without Redis, not after a message was lost. Nothing needs to be told, and
nothing to be dropped in time.

Only a settled session is kept, one in which every message is final. While an answer is written
the newest messages change without a new version.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from app.db import history
from app.domain.errors import Unavailable
from app.domain.messages import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.db.engine import Database
    from app.db.results import SessionVersion
    from app.streams.session_cache import SessionCache
    from app.telemetry import Metrics

KEPT_MESSAGES = 100
"""Messages of a session that a copy has at most, the newest ones."""

LARGEST_COPY_BYTES = 256 * 1024
"""A copy that is encoded in more than this is kept in neither tier."""

_SHAPE = zlib.crc32(",".join(Message.__struct_fields__).encode())
"""Tells the copies of versions of this software apart whose messages have other fields: one that
lacks a field would be read as if the database had nothing in it."""


class Copy(msgspec.Struct, frozen=True, array_like=True):
    """The newest messages of a settled session, oldest first."""

    tag: str
    """Which version of the session this is."""
    is_whole: bool
    """Whether there are no older ones."""
    messages: tuple[Message, ...]

    def serves(self, tag: str, limit: int) -> bool:
        """Say whether this is that version, with as many messages as are asked for or there are."""
        return self.tag == tag and (limit <= len(self.messages) or self.is_whole)


class HistoryCache:
    """Reads the newest messages of a session from the nearest tier that has them."""

    def __init__(
        self,
        database: Database,
        *,
        l1_max_size: int,
        l2: SessionCache | None,
        metrics: Metrics,
    ) -> None:
        """Take the tiers; ``l1_max_size`` is in sessions, 0 and None leave a tier out."""
        self._database = database
        self._l1: OrderedDict[str, Copy] = OrderedDict()
        self._l1_max_size = l1_max_size
        self._l2 = l2
        self._reads = metrics.history_reads
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Copy).decode

    async def newest(
        self, session_id: str, version: SessionVersion, limit: int
    ) -> Sequence[Message]:
        """Read the newest ``limit`` messages of a session that has this version, or a later one."""
        tag = f"{_SHAPE} {version.revision} {version.updated_at.isoformat()}"
        copy = self._from_l1(session_id, tag, limit) or await self._from_l2(session_id, tag, limit)
        if copy is not None:
            return copy.messages[-limit:]
        # One more than is wanted tells whether there are older ones.
        wanted = max(limit, KEPT_MESSAGES)
        items = await self.from_database(session_id, wanted + 1, None)
        kept = tuple(items[-KEPT_MESSAGES:])
        if kept and all(message.is_complete for message in kept):
            await self._keep(session_id, Copy(tag, len(kept) == len(items), kept))
        return items[-limit:]

    async def from_database(self, session_id: str, limit: int, before: str | None) -> list[Message]:
        """Read messages of which no copy is kept, as ``history.messages`` does."""
        self._reads.labels(tier="database", outcome="hit").inc()
        return await history.messages(
            self._database, session_id=session_id, limit=limit, before=before
        )

    def forget(self, session_id: str) -> None:
        """Let go of what this process has of a session that is no more."""
        self._l1.pop(session_id, None)

    def _from_l1(self, session_id: str, tag: str, limit: int) -> Copy | None:
        if not self._l1_max_size:
            return None
        copy = self._l1.get(session_id)
        if copy is None or not copy.serves(tag, limit):
            self._reads.labels(tier="l1", outcome="miss").inc()
            return None
        self._l1.move_to_end(session_id)
        self._reads.labels(tier="l1", outcome="hit").inc()
        return copy

    async def _from_l2(self, session_id: str, tag: str, limit: int) -> Copy | None:
        if self._l2 is None:
            return None
        copy = None
        try:
            value = await self._l2.get(session_id)
            copy = None if value is None else self._decode(value)
        except (Unavailable, msgspec.DecodeError):
            # What is broken is replaced below, like what is old.
            outcome = "failed"
        else:
            outcome = "miss"
        if copy is None or not copy.serves(tag, limit):
            self._reads.labels(tier="l2", outcome=outcome).inc()
            return None
        self._reads.labels(tier="l2", outcome="hit").inc()
        self._keep_in_l1(session_id, copy)
        return copy

    async def _keep(self, session_id: str, copy: Copy) -> None:
        value = self._encode(copy)
        if len(value) > LARGEST_COPY_BYTES:
            return
        self._keep_in_l1(session_id, copy)
        if self._l2 is not None:
            try:
                await self._l2.put(session_id, value)
            except Unavailable:
                self._reads.labels(tier="l2", outcome="failed").inc()

    def _keep_in_l1(self, session_id: str, copy: Copy) -> None:
        if not self._l1_max_size:
            return
        self._l1[session_id] = copy
        self._l1.move_to_end(session_id)
        if len(self._l1) > self._l1_max_size:
            self._l1.popitem(last=False)
