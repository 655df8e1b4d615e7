"""Revocations: known to every node at once, also where Redis or a publication was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.domain.caller import LONGEST_TOKEN_SECONDS, Caller
from app.domain.errors import Unavailable
from app.streams import keys
from app.streams.connection import connect
from app.streams.embedded import EmbeddedRedis
from app.streams.revocations import Revocations

ADA = Caller("ada", "ada", sign_in_id="s-1", token_id="t-1", issued_at=1000.0)


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with _client(redis_url) as client:
        yield client


@asynccontextmanager
async def _client(url: str, timeout_seconds: float = 10) -> AsyncIterator[Redis]:
    client = connect(url, timeout_seconds=timeout_seconds, max_connections=5)
    try:
        yield client
    finally:
        await client.aclose(close_connection_pool=True)


async def test_each_kind_reaches_what_it_means_and_nothing_else(redis: Redis) -> None:
    here, there = Revocations(redis), Revocations(redis)
    others = [
        ADA._replace(token_id="t-2", sign_in_id="s-2", user_id="bob"),
        ADA._replace(token_id=None, sign_in_id=None, user_id="t-1"),
        ADA._replace(token_id="s-1", sign_in_id="t-1", user_id="bob"),
    ]
    for revoke, told in (
        (here.revoke_token("t-1", seconds=60), ADA._replace(sign_in_id=None)),
        (here.revoke_sign_in("s-1", seconds=60), ADA._replace(token_id=None)),
        (here.revoke_user("ada"), ADA._replace(token_id=None, sign_in_id=None)),
    ):
        assert not here.is_revoked(told)
        await revoke
        assert here.is_revoked(told)
        assert not there.is_revoked(told)
        await there.refresh()
        assert there.is_revoked(told)
        assert [one for one in others if there.is_revoked(one)] == []


async def test_what_a_user_gets_after_it_is_good(redis: Redis) -> None:
    clock = Clock()
    here = Revocations(redis, clock=clock)
    await here.revoke_user("ada")
    there = Revocations(redis, clock=clock)
    await there.refresh()
    for one in (here, there):
        assert one.is_revoked(ADA._replace(issued_at=clock.now))
        assert one.is_revoked(ADA._replace(issued_at=None))
        assert not one.is_revoked(ADA._replace(issued_at=clock.now + 0.000001))
        assert not one.is_revoked(Caller("ada", "ada", credential="development"))


async def test_a_user_takes_one_place_however_often(redis: Redis) -> None:
    clock = Clock()
    here = Revocations(redis, clock=clock)
    for _ in range(5):
        await here.revoke_user("ada")
        clock.now += 1
    assert await redis.zcard(keys.REVOKED) == 1
    assert here.is_revoked(ADA._replace(issued_at=clock.now - 1))
    assert not here.is_revoked(ADA._replace(issued_at=clock.now - 0.5))


async def test_what_no_token_has_any_more_is_forgotten(redis: Redis) -> None:
    clock = Clock()
    here = Revocations(redis, clock=clock)
    await here.revoke_token("t-1", seconds=30)
    await here.revoke_sign_in("s-1", seconds=3000)
    clock.now += 200
    await here.refresh()
    assert here._tokens == set()
    assert here.is_revoked(ADA)
    await here.revoke_user("bob")
    assert await redis.zcard(keys.REVOKED) == 2
    for key in (keys.REVOKED, keys.REVOKED_VERSION):
        assert LONGEST_TOKEN_SECONDS < await redis.ttl(key) <= LONGEST_TOKEN_SECONDS + 400


async def test_nothing_is_read_where_nothing_changed(redis: Redis) -> None:
    here = Revocations(redis)
    await here.revoke_token("t-1", seconds=60)
    await here.refresh()
    await redis.config_resetstat()
    await here.refresh()
    assert "cmdstat_zrange" not in await redis.info("commandstats")


async def test_it_is_told_when_something_is_new_and_only_then(redis: Redis) -> None:
    told: list[str] = []
    here = Revocations(redis, on_change=lambda: told.append("changed"))
    await here.revoke_token("t-1", seconds=60)
    assert told == ["changed"]
    here.subscribed()
    await here.refresh()
    await here.refresh()
    assert told == ["changed"]


@pytest.mark.parametrize(
    "payload", [b"", b"x", b"1e999", b"9999999999 ", b"9999999999 {", b'9999999999 ["a","b"]']
)
async def test_a_publication_of_another_version_does_no_harm(redis: Redis, payload: bytes) -> None:
    here = Revocations(redis)
    here.published(payload)
    assert not here.is_revoked(ADA)
    await here.refresh()


async def test_what_redis_could_not_be_told_or_has_lost_is_written_again(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    await server.start()
    async with _client(server.url) as redis:
        here = Revocations(redis)
        await here.revoke_token("t-1", seconds=60)
        await here.refresh()
        await server.stop()
        with pytest.raises(Unavailable):
            await here.revoke_sign_in("s-9", seconds=60)
        with pytest.raises(Unavailable):
            await here.refresh()
        # What is known counts on, and what was to be told counts here already.
        assert here.is_revoked(ADA)
        assert here.is_revoked(Caller("bob", "bob", sign_in_id="s-9"))
        await server.start()
        try:
            await redis.flushall()
            await here.refresh()
            there = Revocations(redis)
            await there.start()
            await there.close()
            assert there.is_revoked(ADA)
            assert there.is_revoked(Caller("bob", "bob", sign_in_id="s-9"))
        finally:
            await server.stop()


async def test_a_node_begins_without_redis(tmp_path: Path) -> None:
    async with _client(f"unix://{tmp_path}/nobody.sock", timeout_seconds=0.2) as redis:
        here = Revocations(redis)
        await here.start()
        assert not here.is_revoked(ADA)
        await here.close()


async def test_many_at_once_are_all_kept(redis: Redis) -> None:
    here, there = Revocations(redis), Revocations(redis)
    await asyncio.gather(
        *(one.revoke_token(f"t-{n}", seconds=60) for n in range(50) for one in (here, there))
    )
    third: Any = Revocations(redis)
    await third.refresh()
    assert len(third._tokens) == 50
