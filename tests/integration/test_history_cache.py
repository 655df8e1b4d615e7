"""Copies of what was said, on two web nodes: they save reading, and are never older than the row.

The talker's clock stands still, so that nothing but the revision tells two states apart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
from redis.asyncio import Redis

from app.db import history, sessions
from app.db.engine import Database
from app.domain.errors import NotFound
from app.domain.events import SessionChanged, new_entry
from app.domain.messages import Status
from app.domain.position import BEFORE_ALL
from app.streams.redis_log import RedisSessionLog
from tests.support.conversations import Talker, after, no_events
from tests.support.reading_node import CACHE, SESSION, ReadingNode, make_node, shared
from tests.support.scribe import LEASE_MS

if TYPE_CHECKING:
    from app.streams.session_cache import SessionCache
    from app.streams.session_log import Claimed, SessionLog


@pytest.fixture
def log(redis: Redis) -> Iterator[RedisSessionLog]:
    log = RedisSessionLog(redis, ttl_seconds=60, max_entries=1000)
    yield log
    log.close()


@pytest.fixture
async def ada(database: Database) -> Talker:
    talker = await Talker(database, "ada", SESSION).arrive()
    await talker.exchange("One?", "1")
    return talker


@pytest.fixture
def here(database: Database, log: RedisSessionLog, redis: Redis) -> ReadingNode:
    return make_node(database, log, shared(redis))


@pytest.fixture
def there(other_node: Database, log: RedisSessionLog, redis: Redis) -> ReadingNode:
    return make_node(other_node, log, shared(redis))


class TestTiers:
    async def test_what_was_read_is_read_again_from_memory(
        self, ada: Talker, here: ReadingNode
    ) -> None:
        first = await here.page()
        assert await here.page() == first
        assert await here.said(1) == ["1"]
        assert here.sources() == (2, 0, 1)
        assert (here.counted("l1", "miss"), here.counted("l2", "miss")) == (1, 1)

    async def test_what_one_node_read_another_has_from_redis(
        self, ada: Talker, here: ReadingNode, there: ReadingNode
    ) -> None:
        first = await here.page()
        assert await there.page() == first
        assert await there.page() == first
        assert there.sources() == (1, 1, 0)

    async def test_what_redis_keeps_has_an_end(
        self, ada: Talker, here: ReadingNode, redis: Redis
    ) -> None:
        await here.page()
        assert 0 < await redis.ttl(CACHE) <= 60

    async def test_a_stream_s_whole_state_comes_from_the_same_copies(
        self, ada: Talker, here: ReadingNode
    ) -> None:
        page = await here.page()
        assert await here.reading.whole(SESSION, "ada") == page
        assert here.sources() == (1, 0, 1)

    async def test_older_pages_come_from_the_database(self, ada: Talker, here: ReadingNode) -> None:
        answer = (await here.page()).items[-1]
        older = await here.page(before=answer.message_id)
        assert [message.content for message in older.items] == ["One?"]
        assert here.sources() == (0, 0, 2)

    async def test_nobody_else_is_given_a_copy(self, ada: Talker, here: ReadingNode) -> None:
        await here.page()
        with pytest.raises(NotFound):
            await here.reading.page(SESSION, "eve", 50, None)
        with pytest.raises(NotFound):
            await here.reading.whole(SESSION, "eve")


async def _question(ada: Talker) -> None:
    await ada.ask("Two?")


async def _finish(ada: Talker) -> None:
    answer = await _last_answer(ada)
    begun = await ada.begin(answer)
    await ada.finish(answer, cast("Any", begun).attempt, "Done.")


async def _exchange(ada: Talker) -> None:
    await ada.exchange("Two?", "2")


async def _regeneration(ada: Talker) -> None:
    answer = await _last_answer(ada)
    again = (await ada.ask_again(answer)).assistant_message
    begun = await ada.begin(again.message_id)
    await ada.finish(answer, cast("Any", begun).attempt, "uno")


async def _awaited_regeneration(ada: Talker) -> None:
    await ada.ask_again(await _last_answer(ada))


async def _rename(ada: Talker) -> None:
    await ada.rename("Another title")


async def _last_answer(ada: Talker) -> str:
    (answer,) = await history.messages(ada.database, session_id=SESSION, limit=1, before=None)
    return answer.message_id


CHANGES = {
    "a question": (_question, ["One?", "1", "Two?", ""]),
    "a final message": (_exchange, ["One?", "1", "Two?", "2"]),
    "a regeneration that is awaited": (_awaited_regeneration, ["One?", ""]),
    "a regenerated message": (_regeneration, ["One?", "uno"]),
    "a rename": (_rename, ["One?", "1"]),
}


class TestChanges:
    """Nothing tells the reading node of them, and it has a copy in both tiers."""

    @pytest.mark.parametrize("change", CHANGES)
    async def test_a_reader_on_another_node_sees_them_at_once(
        self, ada: Talker, there: ReadingNode, change: str
    ) -> None:
        make, expected = CHANGES[change]
        assert await there.said() == ["One?", "1"]
        await make(ada)
        assert await there.said() == expected
        assert there.sources() == (0, 0, 2)

    async def test_each_counts_the_revision_up(self, ada: Talker) -> None:
        async def revision() -> int:
            return (await history.version(ada.database, user_id="ada", session_id=SESSION)).revision

        counted = [await revision()]
        for change in (_question, _finish, _awaited_regeneration, _finish, _rename):
            await change(ada)
            counted.append(await revision())
        assert counted == sorted(set(counted))

    async def test_a_deleted_session_is_gone_everywhere(
        self, ada: Talker, here: ReadingNode, there: ReadingNode
    ) -> None:
        await here.page()
        await there.page()
        await ada.delete()
        for node in (here, there):
            with pytest.raises(NotFound):
                await node.page()
            with pytest.raises(NotFound):
                await node.reading.whole(SESSION, "ada")

    async def test_a_session_that_is_restored_is_shown_as_it_is_then(
        self, ada: Talker, here: ReadingNode, there: ReadingNode
    ) -> None:
        """An answer that was being written when the session was deleted has been cut."""
        before = await there.page()
        again = (await ada.ask_again(before.items[-1].message_id)).assistant_message
        await sessions.put_away_session(
            ada.database,
            user_id="ada",
            session_id=SESSION,
            text_so_far=None,
            purge_at=after(30),
            now=after(0),
            events=no_events,
        )
        for node in (here, there):
            with pytest.raises(NotFound):
                await node.page()
        with pytest.raises(NotFound):
            await ada.ask_again(again.message_id)
        await sessions.restore_session(
            ada.database, user_id="ada", session_id=SESSION, now=after(1), events=no_events
        )
        for node in (here, there):
            page = await node.page()
            assert [message.status for message in page.items] == [
                Status.COMPLETE,
                Status.CANCELLED,
            ]

    async def test_of_a_deleted_session_redis_keeps_nothing(
        self, ada: Talker, here: ReadingNode, log: RedisSessionLog, redis: Redis
    ) -> None:
        await here.page()
        assert await redis.exists(CACHE)
        await ada.delete()
        await log.delete(SESSION, new_entry(SessionChanged(SESSION, "", deleted=True)))
        assert not await redis.exists(CACHE)

    async def test_an_answer_that_grows_is_never_copied(
        self, ada: Talker, here: ReadingNode, redis: Redis
    ) -> None:
        answer = (await ada.ask("Two?")).assistant_message.message_id
        await here.page()
        begun = cast("Any", await ada.begin(answer))
        await here.page()
        assert not await redis.exists(CACHE)
        await ada.finish(answer, begun.attempt, "2")
        assert await here.said() == ["One?", "1", "Two?", "2"]


class Held:
    """A part whose one method waits for the test, between being called and doing its work."""

    def __init__(self, part: object, method: str) -> None:
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self._part, self._method = part, method

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)
        if name != self._method:
            return method

        async def call(*arguments: Any, **named: Any) -> Any:
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                await meanwhile()
            return await method(*arguments, **named)

        return call


class TestOrders:
    """What happens between two steps of one reader."""

    async def test_a_position_has_behind_it_all_that_the_page_shows(
        self, ada: Talker, other_node: Database, log: RedisSessionLog, redis: Redis
    ) -> None:
        """An answer ends just before the log is read: no event brings its text any more.

        Were the row read before the log, its version would lead to the copy without the answer.
        """
        held = Held(log, "snapshot")
        there = make_node(other_node, cast("SessionLog", held), shared(redis))
        await there.page()

        async def answer_is_told() -> None:
            accepted = await ada.ask("Two?")
            question, answer = accepted.user_message, accepted.assistant_message.message_id
            await log.submit(SESSION, answer, 0, [new_entry(question)], pristine=True)
            claimed = cast("Claimed", await log.claim(SESSION, answer, "worker", LEASE_MS))
            begun = cast("Any", await ada.begin(answer))
            final = await ada.finish(answer, begun.attempt, "2")
            assert final is not None
            await log.finish(claimed.lease, answer, begun.attempt, new_entry(final))

        held.meanwhile = answer_is_told
        page = await there.page()
        assert page.position != str(BEFORE_ALL)
        assert [message.content for message in page.items] == ["One?", "1", "Two?", "2"]

    async def test_a_copy_that_comes_late_is_nobody_s(
        self,
        ada: Talker,
        other_node: Database,
        log: RedisSessionLog,
        redis: Redis,
        there: ReadingNode,
    ) -> None:
        """A node read the messages, and everything changes before it has written its copy."""
        held = Held(shared(redis), "put")
        slow = make_node(other_node, log, cast("SessionCache", held))
        held.meanwhile = lambda: _exchange(ada)
        assert await slow.said() == ["One?", "1"]
        assert await redis.exists(CACHE)
        assert await there.said() == await slow.said() == ["One?", "1", "Two?", "2"]

    async def test_a_change_between_row_and_messages_is_shown_by_both_versions(
        self,
        ada: Talker,
        other_node: Database,
        log: RedisSessionLog,
        redis: Redis,
        there: ReadingNode,
    ) -> None:
        """The copy under the older version has the newer messages; nobody asks for it again."""
        held = Held(shared(redis), "get")
        slow = make_node(other_node, log, cast("SessionCache", held))
        held.meanwhile = lambda: _exchange(ada)
        assert await slow.said() == ["One?", "1", "Two?", "2"]
        await ada.exchange("Three?", "3")
        newest = ["One?", "1", "Two?", "2", "Three?", "3"]
        assert await slow.said() == await there.said() == newest
