"""The tier of the history cache that nodes share: one value for each session, in Redis.

It saves work and decides nothing: whoever reads a value judges by what is written in it whether
it is the one that was looked for. A Redis that fails or is slow costs each node one short wait a
second.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from app.domain.errors import Unavailable
from app.streams import keys
from app.streams.connection import reachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

TIMEOUT_SECONDS = 0.1
"""The bound for ``connect``: reading from the database takes a few milliseconds, and a cache that
is waited for longer is none."""

_PAUSE_SECONDS = 1.0
"""How long Redis is left alone after a failure."""


class SessionCache:
    """Reads and writes the values; both raise ``Unavailable``, and neither asks twice."""

    def __init__(
        self, redis: Redis, *, ttl_seconds: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take a client of its own, made with ``TIMEOUT_SECONDS``, and how long values live."""
        self._redis = redis
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._asked_again_at = 0.0

    async def get(self, session_id: str) -> bytes | None:
        """Give a session's value."""
        self._refuse_in_pause()
        try:
            with reachable():
                return cast("bytes | None", await self._redis.get(keys.cache(session_id)))
        except Unavailable:
            self._pause()
            raise

    async def put(self, session_id: str, value: bytes) -> None:
        """Write a session's value over the one that is there."""
        self._refuse_in_pause()
        try:
            with reachable():
                await self._redis.set(keys.cache(session_id), value, ex=self._ttl_seconds)
        except Unavailable:
            self._pause()
            raise

    def _refuse_in_pause(self) -> None:
        if self._clock() < self._asked_again_at:
            raise Unavailable("Redis did not answer a moment ago")

    def _pause(self) -> None:
        # Otherwise each reader would wait for itself, one bound after the other.
        self._asked_again_at = self._clock() + _PAUSE_SECONDS
