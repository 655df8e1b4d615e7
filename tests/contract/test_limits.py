"""Both limiters count alike: a period's worth at once, then as the rate allows, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from app.domain.rates import Charge, Rate, Verdict
from app.streams import keys
from app.streams.connection import connect
from app.streams.limits import Limiter, MemoryLimiter, RedisLimiter

_NOW = 1_790_000_000_000_000
_SECOND = 1_000_000
_LONG_SECONDS = 30.0
"""Nothing here is about waiting: a machine that stands still for a while fails no test."""

OFTEN = Charge("requests", Rate(6, 6000))
SELDOM = Charge("questions", Rate(2, 6000))
"""Long periods: keys expire by the server's clock, also where a test brings one of its own."""


@asynccontextmanager
async def limiting(url: str) -> AsyncIterator[RedisLimiter]:
    redis = connect(url, timeout_seconds=_LONG_SECONDS, max_connections=2)
    limiter = RedisLimiter(redis, timeout_seconds=_LONG_SECONDS)
    try:
        yield limiter
    finally:
        await limiter.close()
        await redis.aclose(close_connection_pool=True)


@pytest.fixture(params=["redis", "memory"])
async def limiter(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Limiter]:
    if request.param == "memory":
        yield MemoryLimiter()
        return
    async with limiting(redis_url) as limiter:
        yield limiter


async def take(
    limiter: Limiter, *charges: Charge, after_seconds: float = 0, subject: str = "user:alice"
) -> Verdict:
    now_us = _NOW + int(after_seconds * _SECOND)
    return await limiter.take(subject, charges, now_us=now_us)


async def test_a_periods_worth_may_come_at_once_and_no_more(limiter: Limiter) -> None:
    verdicts = [await take(limiter, OFTEN) for _ in range(7)]
    assert [verdict.allowed for verdict in verdicts] == [True] * 6 + [False]
    assert [verdict.remaining for verdict in verdicts] == [5, 4, 3, 2, 1, 0, 0]
    assert [verdict.reset_seconds for verdict in verdicts] == [
        1000,
        2000,
        3000,
        4000,
        5000,
        6000,
        6000,
    ]
    assert [verdict.retry_after_seconds for verdict in verdicts] == [0] * 6 + [1000]
    assert verdicts[-1].limit == 6
    assert verdicts[-1].bucket == "requests"


async def test_after_the_wait_that_was_told_there_is_room_for_one(limiter: Limiter) -> None:
    for _ in range(6):
        await take(limiter, OFTEN)
    assert (await take(limiter, OFTEN, after_seconds=350.5)).retry_after_seconds == 650
    assert not (await take(limiter, OFTEN, after_seconds=999.9)).allowed
    assert (await take(limiter, OFTEN, after_seconds=1000)).allowed
    assert not (await take(limiter, OFTEN, after_seconds=1000)).allowed
    later = await take(limiter, OFTEN, after_seconds=1000 + 6000)
    assert (later.allowed, later.remaining) == (True, 5)


async def test_no_window_lets_twice_as_much_pass_at_its_edge(limiter: Limiter) -> None:
    """Of any period, not only of those that begin when a counter does."""
    passed = []
    for tenth in range(1200):
        at = tenth * 10.0
        if (await take(limiter, OFTEN, after_seconds=at)).allowed:
            passed.append(at)
    assert len(passed) == 6 + 11
    assert passed[6:] == [1000.0 * number for number in range(1, 12)]


async def test_a_refusal_by_one_bucket_takes_from_none(limiter: Limiter) -> None:
    for _ in range(2):
        assert (await take(limiter, OFTEN, SELDOM)).allowed
    refused = await take(limiter, OFTEN, SELDOM)
    assert (refused.allowed, refused.bucket, refused.retry_after_seconds) == (
        False,
        "questions",
        3000,
    )
    # In whichever order they are named.
    assert not (await take(limiter, SELDOM, OFTEN)).allowed
    assert (await take(limiter, OFTEN)).remaining == 3


async def test_the_bucket_that_is_nearest_to_its_end_speaks_for_all(limiter: Limiter) -> None:
    allowed = await take(limiter, OFTEN, SELDOM)
    assert (allowed.bucket, allowed.limit, allowed.remaining) == ("questions", 2, 1)
    for _ in range(5):
        await take(limiter, OFTEN)
    await take(limiter, SELDOM)
    # Both are full: the longer wait is the one that helps.
    assert (await take(limiter, OFTEN, SELDOM)).bucket == "questions"


async def test_a_cost_counts_as_often_and_never_more_than_the_bucket_holds(
    limiter: Limiter,
) -> None:
    assert (await take(limiter, OFTEN._replace(cost=4))).remaining == 2
    assert not (await take(limiter, OFTEN._replace(cost=3))).allowed
    assert (await take(limiter, OFTEN._replace(cost=2))).allowed
    whole = OFTEN._replace(cost=5000)
    assert (await take(limiter, whole)).retry_after_seconds == 6000
    assert (await take(limiter, whole, after_seconds=6000)).allowed


async def test_what_is_taken_back_makes_room_and_never_more_than_there_was(
    limiter: Limiter,
) -> None:
    for _ in range(6):
        await take(limiter, OFTEN)
    assert (await take(limiter, OFTEN._replace(cost=-1))).allowed
    assert (await take(limiter, OFTEN)).allowed
    assert not (await take(limiter, OFTEN)).allowed
    assert (await take(limiter, OFTEN._replace(cost=-100))).remaining == 6
    assert [(await take(limiter, OFTEN)).allowed for _ in range(7)] == [True] * 6 + [False]


async def test_subjects_do_not_share(limiter: Limiter) -> None:
    for _ in range(6):
        await take(limiter, OFTEN)
    for other in ("user:bob", "address:alice", "user:alice}", "user:alice}:requests", "user:"):
        assert (await take(limiter, OFTEN, subject=other)).remaining == 5


@pytest.mark.parametrize("limit", [1, 7, 100, 3000, 9_999_999])
async def test_rounding_gives_nothing_away_and_takes_nothing(limiter: Limiter, limit: int) -> None:
    rate = Rate(limit, 60)
    for cost in (limit // 2, limit - limit // 2):
        if cost:
            assert (await take(limiter, Charge("requests", rate, cost))).allowed
    assert not (await take(limiter, Charge("requests", rate))).allowed
    assert (await take(limiter, Charge("requests", rate, limit), after_seconds=60)).allowed


class TestRedis:
    async def test_nodes_share_a_bucket_and_exactly_as_many_pass(self, redis_url: str) -> None:
        """Two nodes, a hundred requests at once, by the server's own clock."""
        charge = Charge("requests", Rate(30, 86_400))
        async with limiting(redis_url) as one, limiting(redis_url) as other:
            verdicts = await asyncio.gather(
                *((one, other)[number % 2].take("user:alice", (charge,)) for number in range(100))
            )
        assert sum(verdict.allowed for verdict in verdicts) == 30
        # The tickets that were given out are all different: no two saw the same state.
        passed = [verdict.remaining for verdict in verdicts if verdict.allowed]
        assert sorted(passed) == list(range(30))

    async def test_a_bucket_is_forgotten_when_it_is_empty(
        self, redis: Redis, redis_url: str
    ) -> None:
        async with limiting(redis_url) as limiter:
            await limiter.take("user:alice", (OFTEN, SELDOM))
            assert 0 < await redis.pttl(keys.limit("user:alice", "requests")) <= 1_000_000
            assert 0 < await redis.pttl(keys.limit("user:alice", "questions")) <= 3_000_000
            await limiter.take("user:alice", (OFTEN._replace(cost=-1),))
            assert not await redis.exists(keys.limit("user:alice", "requests"))

    async def test_the_server_may_be_restarted_and_forget_the_script(
        self, redis: Redis, redis_url: str
    ) -> None:
        async with limiting(redis_url) as limiter:
            await take(limiter, OFTEN)
            await redis.script_flush()
            assert (await take(limiter, OFTEN)).remaining == 4

    async def test_the_keys_of_a_subject_are_in_one_slot(self) -> None:
        """Redis Cluster runs a script on one node: all of its keys must be there."""
        limited = keys.limit("account:1f", "sign_in_account")
        tags = {
            name[name.index("{") + 1 : name.index("}")]
            for name in (limited, keys.sign_in("account:1f", "203.0.113.9"))
        }
        assert tags == {"account:1f"}


def test_a_process_remembers_so_many_buckets_and_no_more() -> None:
    limiter = MemoryLimiter()
    for number in range(10_100):
        limiter.count(f"address:{number}", (OFTEN,), now_us=_NOW)
    assert len(limiter._empty_at_us) == 10_000
    assert limiter.count("address:10099", (OFTEN,), now_us=_NOW).remaining == 4
    assert limiter.count("address:0", (OFTEN,), now_us=_NOW).remaining == 5
