"""A session in a log that is far away, and a node on which it is followed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from app.chat.following import FollowingLimits
from app.chat.reading import Reading
from app.domain.frames import Entries, Frame, History, Welcome
from app.domain.position import Position
from app.streams.memory_log import MemorySessionLog
from tests.support.memory_node import LIMITS, DistantLog, MemoryNode, ScribedReading
from tests.support.scribe import Scribe, Writing

SESSION = "s-1"
_FRAME_SECONDS = 5


class Room:
    """One of each, and ways to write and follow."""

    def __init__(
        self,
        *,
        ring_entries: int = 64,
        max_entries: int = 1000,
        linger_seconds: float = 30,
        check_seconds: float = 3600,
        limits: FollowingLimits = LIMITS,
    ) -> None:
        self.deaf = False
        """Whether publications are lost."""
        self.published: list[bytes] = []
        epochs = itertools.count(1000)
        self.memory = MemorySessionLog(
            max_entries=max_entries,
            clock=time.monotonic,
            epoch_clock=lambda: next(epochs),
            on_publish=self._published,
        )
        self.scribe = Scribe(self.memory, SESSION)
        self.distant = DistantLog(self.memory)
        self.node = MemoryNode(
            self.distant.log,
            cast("Reading", ScribedReading(self.scribe, self.distant.log)),
            ring_entries=ring_entries,
            linger_seconds=linger_seconds,
            check_seconds=check_seconds,
            limits=limits,
        )
        self.tails = self.node.tails

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, **named: Any) -> AsyncIterator[Room]:
        """Make one, and let its tails go at last."""
        room = cls(**named)
        try:
            yield room
        finally:
            await room.tails.close()

    async def answering(self, *pieces: str) -> Writing:
        writing = await self.scribe.begin(await self.scribe.ask())
        assert writing is not None
        if pieces:
            await writing.write(*pieces)
        return writing

    def _published(self, session_id: str, payload: bytes) -> None:
        self.published.append(payload)
        if not self.deaf:
            self.node.wire.deliver(session_id, payload)

    @contextlib.asynccontextmanager
    async def follower(
        self, after: Position | None = None
    ) -> AsyncIterator[Callable[[], Awaitable[Frame]]]:
        """Follow; give what waits for the next frame, the welcome being read already."""
        follower = await self.node.join(SESSION, after)
        frames = follower.frames()

        async def following() -> Frame:
            return await asyncio.wait_for(anext(frames), _FRAME_SECONDS)

        try:
            assert isinstance(await following(), Welcome)
            yield following
        finally:
            await follower.close()

    @contextlib.asynccontextmanager
    async def live(self) -> AsyncIterator[Callable[[], Awaitable[Frame]]]:
        """Follow from now on."""
        async with self.follower() as following:
            assert isinstance(await following(), History)
            yield following


def seqs(frame: Frame) -> list[int]:
    """Give the sequence numbers of a frame that must be one of entries."""
    assert isinstance(frame, Entries), frame
    return [entry.position.seq for entry in frame.entries]


async def turns(count: int = 20) -> None:
    """Let everything come as far as it can without a reply."""
    for _ in range(count):
        await asyncio.sleep(0)
