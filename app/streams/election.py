"""Choosing one process of many for a task that all of them could do."""

from __future__ import annotations

from redis.asyncio import Redis

from app.streams import scripts
from app.streams.connection import reachable


class Election:
    """A seat held for a bounded time. Two may briefly think that they hold it: what is done under
    it must be harmless when done twice."""  # noqa: D205, D209

    def __init__(self, redis: Redis, *, key: str, node_id: str, ttl_ms: int) -> None:
        """Name the seat and the candidate."""
        self._redis = redis
        self._key = key
        self._node_id = node_id
        self._ttl_ms = ttl_ms
        self._hold = scripts.load("hold")

    async def hold(self) -> bool:
        """Take or keep the seat; false where another has it."""
        with reachable():
            reply = await scripts.run(
                self._redis, self._hold, [self._key], self._node_id, self._ttl_ms
            )
        return bool(reply)
