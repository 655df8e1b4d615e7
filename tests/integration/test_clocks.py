"""Processes whose clocks differ: nobody waits for one clock to reach what another one said."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.chat.reading import Reading
from app.composition import clock_of
from app.config import Settings
from app.db.engine import Database
from app.domain.frames import Heartbeat, History, HistoryReason, Welcome
from app.domain.position import BEFORE_ALL
from app.streams.memory_log import MemorySessionLog
from tests.support.conversations import Talker
from tests.support.databases import NewDatabase
from tests.support.memory_node import CALLER, MemoryNode


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_lost_log_is_told_of_whatever_the_time_was_elsewhere(
    new_database: NewDatabase, hours: int
) -> None:
    """Asked on a node whose clock is off, followed from 0-0 on this one, the log lost between."""
    database = Database(new_database("sqlite"))
    epochs = itertools.count(1000)
    log = MemorySessionLog(max_entries=1000, clock=lambda: 0.0, epoch_clock=lambda: next(epochs))
    node = MemoryNode(log, Reading(database, log), database=database)
    talker = await Talker(database, "ada", "s-1").arrive()
    await talker.exchange("Why?", "Because.", now=datetime.now(UTC) + timedelta(hours=hours))
    follower = await node.following.open(CALLER, "s-1", BEFORE_ALL, "sse")
    try:
        async with asyncio.timeout(10):
            async for frame in follower.frames():
                if not isinstance(frame, Welcome | Heartbeat):
                    break
        assert isinstance(frame, History)
        assert frame.reason is HistoryReason.EPOCH
        assert [message.content for message in frame.messages] == ["Why?", "Because."]
    finally:
        await follower.close()
        await node.tails.close()
        await database.close()


def test_a_clock_is_set_off_as_the_settings_say(tmp_path: Path) -> None:
    clock = clock_of(Settings(data_dir=tmp_path, clock_offset_seconds=-1800.0))
    off = datetime.now(UTC) - clock()
    assert timedelta(seconds=1799) < off < timedelta(seconds=1801)
