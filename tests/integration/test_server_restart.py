"""The server is restarted in the middle of an answer: what it wrote to its file is what counts."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from app.domain.errors import Unavailable
from app.domain.frames import HistoryReason
from app.domain.position import BEFORE_ALL, Position
from app.domain.resume import judge
from app.streams import keys
from app.streams.connection import connect
from app.streams.embedded import EmbeddedRedis
from app.streams.redis_log import RedisSessionLog
from app.streams.session_log import AppendOutcome, Claimed
from tests.support.contract_client import ContractClient
from tests.support.scribe import Scribe, Writing, tell
from tests.support.waiting import eventually

_SESSION = "s-1"
_Found = TypeVar("_Found")


class _Restarted:
    """A server of the test's own, and a log on it that outlives its runs."""

    def __init__(self, directory: Path) -> None:
        self.server = EmbeddedRedis(directory)
        self.redis = connect(self.server.url, timeout_seconds=5, max_connections=2)
        self.log = RedisSessionLog(self.redis, ttl_seconds=60, max_entries=1000)
        self._directory = directory

    async def kill_and_start(self) -> None:
        """End the server without a chance to say anything, and start it on its file."""
        assert self.server.pid is not None
        os.kill(self.server.pid, signal.SIGKILL)
        # Reaps it; its socket and lock are free then.
        await self.server.stop()
        self.server = EmbeddedRedis(self._directory)
        await self.server.start()

    async def again(self, call: Callable[[], Awaitable[_Found]]) -> _Found:
        """Call until the connections that were lost are noticed, as whoever uses the log does."""
        found: list[_Found] = []
        for _ in range(10):
            try:
                found.append(await call())
            except Unavailable:
                continue
            return found[0]
        raise AssertionError("the server does not come back")

    async def end_lease(self) -> None:
        await self.redis.pexpire(keys.owner(_SESSION), 0)


@pytest.fixture
async def restarted(tmp_path: Path) -> AsyncIterator[_Restarted]:
    restarted = _Restarted(tmp_path)
    await restarted.server.start()
    try:
        yield restarted
    finally:
        restarted.log.close()
        await restarted.redis.aclose(close_connection_pool=True)
        await restarted.server.stop()


async def _writing(scribe: Scribe) -> Writing:
    writing = await scribe.begin(await scribe.ask())
    assert writing is not None
    return writing


async def test_a_further_attempt_begins_a_new_epoch(restarted: _Restarted) -> None:
    """It cannot know whether it has lost its last second: clients are told to start over."""
    scribe = Scribe(restarted.log, _SESSION)
    writing = await _writing(scribe)
    await writing.write("so ", "far")
    (seen,) = await restarted.log.tails([_SESSION])
    await restarted.kill_and_start()
    assert await restarted.again(lambda: restarted.log.tails([_SESSION])) == [seen]
    await restarted.end_lease()
    second = await scribe.begin(writing.answer, "worker-2")
    assert second is not None
    assert second.text == "so far"
    held = await restarted.log.read(_SESSION, seen, 100)
    assert held.last.epoch > seen.epoch
    assert judge(seen, held.first, held.last, original=held.original) is HistoryReason.EPOCH
    await restarted.again(lambda: second.write(", so good"))
    assert await second.finish() is AppendOutcome.OK
    client = tell(ContractClient(), (await restarted.log.read(_SESSION, BEFORE_ALL, 100)).entries)
    assert client.text(writing.answer) == "so far, so good"
    assert [start["content"] for start in client.starts] == ["so far"]


async def test_in_one_run_a_further_attempt_stays_in_its_epoch(restarted: _Restarted) -> None:
    scribe = Scribe(restarted.log, _SESSION)
    writing = await _writing(scribe)
    (seen,) = await restarted.log.tails([_SESSION])
    await restarted.end_lease()
    assert await scribe.begin(writing.answer, "worker-2") is not None
    assert await restarted.log.tails([_SESSION]) == [seen.plus(1)]


async def test_a_lease_and_a_stop_outlive_the_server(restarted: _Restarted) -> None:
    scribe = Scribe(restarted.log, _SESSION)
    answer = await scribe.ask()
    claimed = await restarted.log.claim(_SESSION, answer, "worker-1", 60_000)
    assert isinstance(claimed, Claimed)
    await restarted.log.cancel(_SESSION, answer, 1)
    await restarted.kill_and_start()
    assert await restarted.again(lambda: scribe.begin(answer, "worker-2")) is None
    await restarted.end_lease()
    second = await scribe.begin(answer, "worker-2")
    assert second is not None
    assert await restarted.again(lambda: second.write("text")) is AppendOutcome.CANCELLED


async def test_a_flush_whose_end_is_not_in_the_file_is_noticed(restarted: _Restarted) -> None:
    """A power cut takes the last second: the next flush does not follow on what is left."""
    scribe = Scribe(restarted.log, _SESSION)
    writing = await _writing(scribe)
    await writing.write("kept ")
    # What a power cut leaves of the file is what it had reached the disk with.
    await eventually(lambda: _file(restarted).stat().st_size, "the file is written")
    size = _file(restarted).stat().st_size
    await writing.write("and lost")
    (seen,) = await restarted.log.tails([_SESSION])
    pid = restarted.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await restarted.server.stop()
    os.truncate(_file(restarted), size)
    restarted.server = EmbeddedRedis(restarted._directory)
    await restarted.server.start()
    (left,) = await restarted.again(lambda: restarted.log.tails([_SESSION]))
    assert left == Position(seen.epoch, seen.seq - 1)
    assert await restarted.again(lambda: writing.write(" more")) is AppendOutcome.LOST
    assert await restarted.log.tails([_SESSION]) == [left]
    await restarted.end_lease()
    second = await scribe.begin(writing.answer, "worker-1", remembered=writing.text)
    assert second is not None
    assert second.text == "kept and lost"
    held = await restarted.log.read(_SESSION, seen, 100)
    assert judge(seen, held.first, held.last, original=held.original) is HistoryReason.EPOCH


def _file(restarted: _Restarted) -> Path:
    (found,) = (restarted._directory / "valkey" / "appendonlydir").glob("*.incr.aof")
    return found
