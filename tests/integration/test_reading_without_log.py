"""What was said can be read while Redis is frozen, and soon."""

from __future__ import annotations

import asyncio
import time

from app.chat.reading import Reading
from app.db.engine import Database
from app.domain.position import BEFORE_ALL
from app.streams.memory_log import MemorySessionLog
from app.streams.session_log import Snapshot
from tests.support.conversations import Talker
from tests.support.databases import NewDatabase


class _FrozenLog(MemorySessionLog):
    """Takes every question and answers none, without ever failing."""

    asked = 0

    async def snapshot(self, session_id: str) -> Snapshot:
        self.asked += 1
        await asyncio.Event().wait()
        return await super().snapshot(session_id)


async def test_a_page_waits_for_a_frozen_log_once_and_not_for_long(
    new_database: NewDatabase,
) -> None:
    database = Database(new_database("sqlite"))
    log = _FrozenLog(max_entries=10, clock=time.monotonic, epoch_clock=lambda: 1)
    try:
        talker = await Talker(database).arrive()
        asked = [await talker.exchange(f"question {one}", "Fine.") for one in range(3)]
        reading = Reading(database, log)
        async with asyncio.timeout(20):
            newest = await reading.page("s-1", "ada", 2, None)
            assert log.asked == 1
            first = asked[0].user_message
            around = await reading.around("s-1", "ada", first.message_id, 2)
            assert log.asked == 2
    finally:
        await database.close()
    assert [one.content for one in newest.items] == ["question 2", "Fine."]
    assert newest.position == str(BEFORE_ALL)
    assert around is not None
    assert first.message_id in {one.message_id for one in around.items}
