"""How often one may try to sign in, and that nobody can lock anybody else out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.domain.errors import RateLimited
from app.domain.rates import Charge, Verdict
from app.streams.connection import connect
from app.streams.limits import RedisLimiter, SignInLimits, SignInRates

_RATES = SignInRates(per_account=100, per_address=200)
_HERE = "203.0.113.9"
_ELSEWHERE = "198.51.100.1"
_LONG_SECONDS = 30.0


class _Stopped(RedisLimiter):
    """Under a clock that a test moves, so that waits are exact and nothing waits."""

    now_us = 1_790_000_000_000_000

    def later(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)

    async def take(
        self, subject: str, charges: Sequence[Charge], *, now_us: int | None = None
    ) -> Verdict:
        return await super().take(subject, charges, now_us=self.now_us)

    async def try_account(
        self, account: str, address: str, charge: Charge, *, now_us: int | None = None
    ) -> int:
        return await super().try_account(account, address, charge, now_us=self.now_us)


class _Counted:
    """Limits, with what they tell of."""

    def __init__(self, limiter: RedisLimiter, rates: SignInRates = _RATES) -> None:
        self.refused: list[str] = []
        self.silences = 0
        self.limits = SignInLimits(
            limiter,
            rates,
            refused=self.refused.append,
            failed=self._count_silence,
            clock=lambda: 1000.0,
        )

    def _count_silence(self) -> None:
        self.silences += 1

    async def wait(self, account: str = "alice", address: str = _HERE) -> int:
        """Try with a wrong password; give the seconds that the refusal names, 0 where it passed."""
        try:
            await self.limits.check(account, address)
        except RateLimited as refusal:
            return refusal.retry_after_seconds
        await self.limits.failed(account, address)
        return 0


@pytest.fixture
async def clock(redis: Redis) -> AsyncIterator[_Stopped]:
    limiter = _Stopped(redis, timeout_seconds=_LONG_SECONDS)
    yield limiter
    await limiter.close()


@pytest.fixture
def tries(clock: _Stopped) -> _Counted:
    return _Counted(clock)


async def test_each_failure_after_the_fifth_doubles_the_wait(
    tries: _Counted, clock: _Stopped
) -> None:
    assert [await tries.wait() for _ in range(7)] == [0, 0, 0, 0, 0, 0, 1]
    waits = []
    for _ in range(12):
        waits.append(await tries.wait())
        clock.later(waits[-1])
        assert await tries.wait() == 0
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


async def test_hammering_lengthens_no_wait(tries: _Counted, clock: _Stopped) -> None:
    for _ in range(6):
        await tries.wait()
    assert [await tries.wait() for _ in range(50)] == [1] * 50
    clock.later(1)
    assert await tries.wait() == 0


async def test_the_right_password_forgets_this_addresss_failures(
    tries: _Counted, clock: _Stopped
) -> None:
    for _ in range(6):
        await tries.wait()
    assert await tries.wait() == 1
    clock.later(1)
    await tries.limits.check("alice", _HERE)
    await tries.limits.succeeded("alice", _HERE)
    assert [await tries.wait() for _ in range(7)] == [0] * 6 + [1]


async def test_a_hundred_tries_at_once_are_a_hundred(tries: _Counted) -> None:
    """Counted before the password is looked at: no burst is let through to the hashing."""
    waits = await asyncio.gather(*(tries.wait() for _ in range(100)))
    assert sorted(waits) == [0] * 6 + [1] * 94


async def test_an_attacker_elsewhere_costs_the_owner_nothing(tries: _Counted) -> None:
    for _ in range(50):
        await tries.wait(address=_ELSEWHERE)
    assert await tries.wait(address=_ELSEWHERE) > 0
    assert await tries.wait() == 0
    # Nor does it cost the attacker's neighbours anything at other accounts.
    assert await tries.wait("bob", _ELSEWHERE) == 0


async def test_many_addresses_together_reach_the_ceiling_of_an_account(
    tries: _Counted, clock: _Stopped
) -> None:
    """Then a place comes free every 36 seconds: the owner is not locked out for long."""
    for number in range(100):
        assert await tries.wait(address=f"192.0.2.{number}") == 0
    assert await tries.wait() == 36
    assert tries.refused == ["sign_in_account"]
    assert await tries.wait("bob") == 0
    clock.later(36)
    await tries.limits.check("alice", _HERE)
    await tries.limits.succeeded("alice", _HERE)
    # What was right is given back: the ceiling is one of failures.
    await tries.limits.check("alice", _HERE)


async def test_one_address_reaches_its_ceiling_at_whatever_accounts(tries: _Counted) -> None:
    for number in range(200):
        assert await tries.wait(f"user-{number}") == 0
    assert await tries.wait("user-200") == 18
    assert tries.refused == ["sign_in_address"]
    assert await tries.wait("user-200", _ELSEWHERE) == 0


async def test_a_name_is_the_same_however_it_is_written_and_is_not_in_redis(
    tries: _Counted, redis: Redis
) -> None:
    for name in ("Alice", " alice ", "ALICE", "alice", "aLice", "alice"):
        assert await tries.wait(name) == 0
    assert await tries.wait() == 1
    await tries.wait("\ud800" * 100_000)
    names = " ".join(map(os.fsdecode, await redis.keys()))
    assert "alice" not in names.lower()
    assert len(names) < 1000


async def test_no_limit_is_no_limit(clock: _Stopped, redis: Redis) -> None:
    tries = _Counted(clock, SignInRates(per_account=0, per_address=0))
    assert [await tries.wait() for _ in range(300)] == [0] * 300
    assert await redis.keys() == []


async def test_without_redis_a_node_counts_for_itself_and_allows_less(tmp_path: Path) -> None:
    redis = connect(f"unix://{tmp_path}/nobody.sock", timeout_seconds=5, max_connections=1)
    limiter = RedisLimiter(redis, timeout_seconds=_LONG_SECONDS)
    tries = _Counted(limiter)
    assert [await tries.wait() for _ in range(6)] == [0] * 5 + [12]
    waits = [await tries.wait(f"user-{number}") for number in range(20)]
    assert waits == [0] * 15 + [3] * 5
    assert set(tries.refused) == {"sign_in_account", "sign_in_address"}
    assert tries.silences == 26
    # The password was right: nothing can be taken back, and that is no error.
    await tries.limits.succeeded("alice", _HERE)
    await limiter.close()
    await redis.aclose(close_connection_pool=True)
