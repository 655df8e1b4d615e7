"""What a server, or the way to it, may refuse: each passes, and nothing is taken for lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from app.domain.errors import Unavailable
from app.domain.position import BEFORE_ALL
from app.streams.connection import connect
from app.streams.embedded import EmbeddedRedis
from app.streams.redis_log import RedisSessionLog
from app.streams.session_log import AppendOutcome
from tests.support.network import network_to
from tests.support.scribe import Scribe, Writing
from tests.support.waiting import eventually


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path)
    await server.start()
    yield server
    await server.stop()


async def _writing(log: RedisSessionLog) -> Writing:
    scribe = Scribe(log)
    writing = await scribe.begin(await scribe.ask())
    assert writing is not None
    return writing


async def test_a_flush_that_a_full_disk_refuses_is_not_a_lost_lease(
    server: EmbeddedRedis, tmp_path: Path
) -> None:
    """The worker sends the same flush again once there is room, under the lease that it has."""
    redis = connect(server.url, timeout_seconds=5, max_connections=2)
    log = RedisSessionLog(redis, ttl_seconds=60, max_entries=1000)
    try:
        writing = await _writing(log)
        assert await writing.write("so ") is AppendOutcome.OK
        # The file cannot be put in place, as on a disk without room: writes are refused then.
        (tmp_path / "valkey" / "dump.rdb").mkdir()
        await redis.config_set("save", "3600 1")
        await redis.bgsave()
        async with asyncio.timeout(10):
            while (await redis.info("persistence"))["rdb_last_bgsave_status"] != "err":
                pass
        with pytest.raises(Unavailable):
            await writing.write("far")
        with pytest.raises(Unavailable):
            await log.renew([(writing.lease, writing.answer, 1)], 60_000)
        await redis.config_set("save", "")
        assert await writing.write_again() is AppendOutcome.OK
        snapshot = await log.snapshot("s-1")
        assert snapshot.active is not None
        assert snapshot.active.text == "so far"
    finally:
        # It would not end with a snapshot that it cannot write.
        await redis.config_set("save", "")
        log.close()
        await redis.aclose(close_connection_pool=True)


def test_a_connection_that_was_reset_while_idle_is_a_failure_that_passes(valkey: str) -> None:
    """With uvloop a RuntimeError, which would be a 500 to a request and lose a worker its job."""
    uvloop = pytest.importorskip("uvloop")

    async def reset_and_read() -> None:
        async with network_to(Path(unquote(valkey.removeprefix("unix://")))) as network:
            url = f"redis://127.0.0.1:{network.port}/0"
            redis = connect(url, timeout_seconds=5, max_connections=1)
            log = RedisSessionLog(redis, ttl_seconds=60, max_entries=1000)
            try:
                assert (await log.read("s-1", BEFORE_ALL, 1)).entries == []
                (connection,) = network.connections
                connection.cut()
                await eventually(lambda: not network.connections, "the network let it go")
                pool: Any = redis.connection_pool
                (pooled,) = pool._available_connections
                await eventually(pooled._writer.transport.is_closing, "the reset came")
                with pytest.raises(Unavailable):
                    await log.read("s-1", BEFORE_ALL, 1)
                assert (await log.read("s-1", BEFORE_ALL, 1)).entries == []
            finally:
                log.close()
                await redis.aclose(close_connection_pool=True)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(reset_and_read())
