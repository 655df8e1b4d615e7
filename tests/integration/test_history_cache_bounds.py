"""Copies of what was said: what is kept, for how much, and what happens without Redis."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from redis.asyncio import Redis

from app.chat import history_cache
from app.chat.history_cache import KEPT_MESSAGES, Copy
from app.db.engine import Database
from app.domain.errors import Unavailable
from app.domain.messages import Status
from app.domain.position import BEFORE_ALL
from app.streams.connection import connect
from app.streams.redis_log import RedisSessionLog
from app.streams.session_cache import TIMEOUT_SECONDS, SessionCache
from tests.support.conversations import Talker, after
from tests.support.databases import NewDatabase
from tests.support.reading_node import CACHE, SESSION, make_node, shared


@pytest.fixture
def log(redis: Redis) -> Iterator[RedisSessionLog]:
    log = RedisSessionLog(redis, ttl_seconds=60, max_entries=1000)
    yield log
    log.close()


@pytest.fixture
async def one_database(new_database: NewDatabase) -> AsyncIterator[Database]:
    """A database on one engine, for what no engine has a part in."""
    database = Database(new_database("sqlite"))
    yield database
    await database.close()


@pytest.fixture
async def bob(one_database: Database) -> Talker:
    talker = await Talker(one_database, "ada", SESSION).arrive()
    await talker.exchange("One?", "1")
    return talker


class TestRestoredDatabases:
    async def test_numbers_that_are_given_out_again_lead_to_no_copy_of_the_first_time(
        self,
        bob: Talker,
        one_database: Database,
        log: RedisSessionLog,
        redis: Redis,
        tmp_path: Path,
    ) -> None:
        """A backup is put back, and another conversation gets to the same revision."""
        backup = tmp_path / "backup.db"
        _back_up(tmp_path, backup)
        node = make_node(one_database, log, shared(redis))
        await bob.exchange("Two?", "2")
        assert await node.said() == ["One?", "1", "Two?", "2"]
        restored = Database(f"sqlite:///{backup}")
        try:
            later = Talker(restored, "ada", SESSION)
            await later.exchange("Instead?", "3", now=after(60))
            other = make_node(restored, log, shared(redis))
            assert await other.said() == ["One?", "1", "Instead?", "3"]
        finally:
            await restored.close()


class TestRedisTrouble:
    async def test_without_redis_memory_and_database_go_on(
        self, bob: Talker, one_database: Database, tmp_path: Path
    ) -> None:
        nowhere = f"unix://{tmp_path / 'nobody.sock'}"
        redis = connect(nowhere, timeout_seconds=TIMEOUT_SECONDS, max_connections=2)
        log = RedisSessionLog(redis, ttl_seconds=60, max_entries=1000)
        node = make_node(one_database, log, shared(redis))
        assert (await node.page()).position == str(BEFORE_ALL)
        assert await node.said() == ["One?", "1"]
        await bob.exchange("Two?", "2")
        assert await node.said() == ["One?", "1", "Two?", "2"]
        log.close()
        await redis.aclose(close_connection_pool=True)
        assert node.sources() == (1, 0, 2)
        assert node.counted("l2", "failed") > 0

    async def test_a_redis_that_does_not_answer_is_waited_for_once_a_second(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "silent.sock"
        connected = 0

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connected
            connected += 1
            await reader.read()
            writer.close()

        now = 100.0
        server = await asyncio.start_unix_server(say_nothing, path)
        redis = connect(f"unix://{path}", timeout_seconds=TIMEOUT_SECONDS, max_connections=2)
        cache = SessionCache(redis, ttl_seconds=60, clock=lambda: now)
        async with asyncio.timeout(20 * TIMEOUT_SECONDS):
            for _ in range(1000):
                with pytest.raises(Unavailable):
                    await cache.get(SESSION)
                with pytest.raises(Unavailable):
                    await cache.put(SESSION, b"")
        assert connected == 1
        now += 1.1
        with pytest.raises(Unavailable):
            await cache.get(SESSION)
        assert connected == 2
        await redis.aclose(close_connection_pool=True)
        server.close()

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"\xc1",
            b"not a copy",
            msgspec.msgpack.encode([]),
            msgspec.msgpack.encode(["tag", True, [{"message_id": "m"}]]),
        ],
    )
    async def test_a_broken_value_is_passed_over_and_replaced(
        self, bob: Talker, one_database: Database, log: RedisSessionLog, redis: Redis, value: bytes
    ) -> None:
        await redis.set(CACHE, value, ex=60)
        node = make_node(one_database, log, shared(redis))
        assert await node.said() == ["One?", "1"]
        assert node.counted("l2", "failed") == 1
        other = make_node(one_database, log, shared(redis))
        assert await other.said() == ["One?", "1"]
        assert other.sources() == (0, 1, 0)

    async def test_a_value_of_another_kind_is_passed_over(
        self, bob: Talker, one_database: Database, log: RedisSessionLog, redis: Redis
    ) -> None:
        await redis.hset(CACHE, "field", "value")
        await redis.expire(CACHE, 60)
        node = make_node(one_database, log, shared(redis))
        assert await node.said() == ["One?", "1"]

    async def test_a_copy_of_another_version_s_messages_is_passed_over(
        self,
        bob: Talker,
        one_database: Database,
        log: RedisSessionLog,
        redis: Redis,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Two versions of this software run side by side; one knows a field more."""
        with monkeypatch.context() as older:
            older.setattr(history_cache, "_SHAPE", 1)
            await make_node(one_database, log, shared(redis)).page()
        node = make_node(one_database, log, shared(redis))
        await node.page()
        assert node.sources() == (0, 0, 1)


class TestBounds:
    async def test_without_tiers_all_comes_from_the_database(
        self, bob: Talker, one_database: Database, log: RedisSessionLog
    ) -> None:
        node = make_node(one_database, log, None, l1_max_size=0)
        assert await node.said() == await node.said() == ["One?", "1"]
        assert node.sources() == (0, 0, 2)

    async def test_the_session_that_was_not_read_for_longest_leaves_memory(
        self, one_database: Database, log: RedisSessionLog
    ) -> None:
        node = make_node(one_database, log, None, l1_max_size=2)
        for session_id in ("a", "b", "c"):
            await (await Talker(one_database, "ada", session_id).arrive()).exchange("?", "!")

        async def read(*sessions: str) -> None:
            for session_id in sessions:
                await node.reading.page(session_id, "ada", 50, None)

        await read("a", "b", "a", "c")
        assert node.sources() == (1, 0, 3)
        await read("a", "c")
        assert node.sources() == (3, 0, 3)
        await read("b")
        assert node.sources() == (3, 0, 4)

    @pytest.mark.parametrize(("length", "is_kept"), [(255 * 1024, True), (256 * 1024, False)])
    async def test_a_session_that_is_too_large_is_kept_nowhere(
        self,
        bob: Talker,
        one_database: Database,
        log: RedisSessionLog,
        redis: Redis,
        length: int,
        *,
        is_kept: bool,
    ) -> None:
        await bob.exchange("Long?", "x" * length)
        node = make_node(one_database, log, shared(redis))
        await node.page()
        assert await redis.exists(CACHE) == is_kept
        await node.page()
        assert node.sources() == ((1, 0, 1) if is_kept else (0, 0, 2))

    async def test_a_long_session_is_copied_up_to_a_number_of_messages(
        self, bob: Talker, one_database: Database, log: RedisSessionLog, redis: Redis
    ) -> None:
        for number in range(KEPT_MESSAGES // 2):
            await bob.exchange(f"{number}?", str(number))
        node = make_node(one_database, log, shared(redis))
        newest = await node.page(3)
        value = await redis.get(CACHE)
        assert isinstance(value, bytes)
        copy = msgspec.msgpack.decode(value, type=Copy)
        assert (len(copy.messages), copy.is_whole) == (KEPT_MESSAGES, False)
        # More than the copy has is in the database only.
        whole = await node.reading.whole(SESSION, "ada")
        assert len(whole.items) == KEPT_MESSAGES + 2
        assert node.sources() == (0, 0, 2)
        assert newest.items == whole.items[-3:]
        assert (await node.page(KEPT_MESSAGES)).items == whole.items[2:]
        assert (await node.reading.whole(SESSION, "ada")).items == whole.items
        assert node.sources() == (1, 0, 3)

    async def test_a_copy_of_all_there_is_serves_who_asks_for_more(
        self, bob: Talker, one_database: Database, log: RedisSessionLog
    ) -> None:
        node = make_node(one_database, log, None)
        assert await node.said(1) == ["1"]
        assert await node.said(100) == ["One?", "1"]
        assert node.sources() == (1, 0, 1)

    async def test_a_failed_answer_is_as_final_as_another(
        self, bob: Talker, one_database: Database, log: RedisSessionLog
    ) -> None:
        accepted = await bob.ask("Two?")
        answer = accepted.assistant_message.message_id
        begun = cast("Any", await bob.begin(answer))
        await bob.finish(answer, begun.attempt, "", status=Status.FAILED)
        node = make_node(one_database, log, None)
        assert await node.page() == await node.page()
        assert node.sources() == (1, 0, 1)


def _back_up(directory: Path, backup: Path) -> None:
    (file,) = directory.glob("*.db")
    with (
        contextlib.closing(sqlite3.connect(file)) as present,
        contextlib.closing(sqlite3.connect(backup)) as copied,
    ):
        present.backup(copied)
