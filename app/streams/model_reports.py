"""What workers say of their models' servers, for web nodes to show: only workers ask a model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from app.streams import keys
from app.streams.connection import reachable

FRESH_SECONDS = 20
"""Age at which a report counts no more: its worker is gone, or cannot reach Redis."""


class _Report(msgspec.Struct):
    at: datetime
    asked: dict[str, bool]
    goes_on: list[str] = []


class ModelReports:
    """One report for each worker, under its node id: which models it asks, and which it leaves."""

    def __init__(self, redis: Redis, *, clock: Callable[[], datetime]) -> None:
        self._redis = redis
        self._clock = clock

    async def tell(
        self, node_id: str, asked: Mapping[str, bool], goes_on: Sequence[str] = ()
    ) -> None:
        """Say for each model whether its server is asked; reports that are too old go.

        ``goes_on``: the models that are known to go on with an answer that they had begun.
        """
        report = msgspec.json.encode(_Report(self._clock(), dict(asked), list(goes_on)))
        stale = [name for name, found in (await self._all()).items() if not self._is_fresh(found)]
        with reachable():
            pipeline: Any  # its commands are typed as if they were sent at once
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(keys.MODELS, node_id, report)
                if stale:
                    pipeline.hdel(keys.MODELS, *stale)
                pipeline.expire(keys.MODELS, FRESH_SECONDS)
                await pipeline.execute()

    async def read(self) -> list[dict[str, bool]]:
        """Give what each worker says that spoke lately."""
        return [report.asked for report in (await self._all()).values() if self._is_fresh(report)]

    async def going_on(self) -> frozenset[str]:
        """Name the models that go on, as any worker knows that spoke lately."""
        fresh = [found for found in (await self._all()).values() if self._is_fresh(found)]
        return frozenset(model_id for report in fresh for model_id in report.goes_on)

    async def _all(self) -> dict[bytes, _Report]:
        with reachable():
            found = await cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(keys.MODELS))
        reports = {}
        for name, written in found.items():
            try:
                reports[name] = msgspec.json.decode(written, type=_Report)
            except msgspec.MsgspecError:  # a worker's of another version
                continue
        return reports

    def _is_fresh(self, report: _Report) -> bool:
        # By the clocks of two machines: one that is ahead is no reason to drop its word.
        return self._clock() - report.at < timedelta(seconds=FRESH_SECONDS)
