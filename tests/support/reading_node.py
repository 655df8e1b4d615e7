"""What a web node reads with, made by hand, and where its reads were served from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from redis.asyncio import Redis

from app.chat.history_cache import HistoryCache
from app.chat.reading import MessagePage, Reading
from app.db.engine import Database
from app.streams import keys
from app.streams.session_cache import SessionCache
from app.telemetry import create_metrics

if TYPE_CHECKING:
    from app.streams.session_log import SessionLog

SESSION = "s-1"
CACHE = keys.cache(SESSION)


class ReadingNode(NamedTuple):
    """What a web node reads with."""

    reading: Reading
    cache: HistoryCache
    counted: Callable[[str, str], float]

    async def page(self, limit: int = 50, before: str | None = None) -> MessagePage:
        return await self.reading.page(SESSION, "ada", limit, before)

    async def said(self, limit: int = 50) -> list[str]:
        return [message.content for message in (await self.page(limit)).items]

    def sources(self) -> tuple[float, float, float]:
        """Give how often L1, L2 and the database had what was asked for."""
        l1, l2, database = (self.counted(tier, "hit") for tier in ("l1", "l2", "database"))
        return l1, l2, database


def make_node(
    database: Database, log: SessionLog, l2: SessionCache | None, *, l1_max_size: int = 8
) -> ReadingNode:
    metrics = create_metrics()
    cache = HistoryCache(database, l1_max_size=l1_max_size, l2=l2, metrics=metrics)

    def counted(tier: str, outcome: str) -> float:
        labels = {"tier": tier, "outcome": outcome}
        return metrics.registry.get_sample_value("throughline_history_reads_total", labels) or 0.0

    return ReadingNode(Reading(database, log, cache), cache, counted)


def shared(redis: Redis) -> SessionCache:
    return SessionCache(redis, ttl_seconds=60)
