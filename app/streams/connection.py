"""Connections to Redis, and the one place where its failures become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hiredis import HiredisError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.domain.errors import Unavailable
from app.streams.link import Pipe

_TIMEOUT_SECONDS = 5.0
_RESET = "the handler is closed"


def connect(url: str, *, timeout_seconds: float, max_connections: int) -> Redis:
    """Make a client for ``redis://``, ``rediss://`` or ``unix://``; connects on first use.

    Every command ends within about ``timeout_seconds``. Nothing is sent again behind our back: a
    write whose reply was lost is repeated by the caller, who knows whether that is safe. Waiting
    for a free connection is bounded as well, where redis-py's own pool would raise.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=min(timeout_seconds, 2.0),
        health_check_interval=30,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return Redis(connection_pool=pool)


def pipe_of(redis: Redis) -> Pipe:
    """Make a bare connection to where ``redis`` connects, with its bound on each exchange."""
    pool = redis.connection_pool
    where = {**pool.connection_kwargs, "connection_class": pool.connection_class}
    return Pipe(where, timeout_seconds=where.get("socket_timeout") or _TIMEOUT_SECONDS)


@contextmanager
def reachable() -> Iterator[None]:
    """Turn any failure of Redis within the block into ``Unavailable``."""
    try:
        yield
    except (RedisError, HiredisError, OSError, TimeoutError) as failure:
        raise Unavailable(f"Redis cannot be reached ({type(failure).__name__})") from failure
    except RuntimeError as failure:
        # A connection that was reset while nobody used it: redis-py notices an orderly end alone,
        # and uvloop's transport refuses to be written to with nothing better than this.
        if _RESET not in str(failure):
            raise
        raise Unavailable("Redis cannot be reached (the connection was reset)") from failure
