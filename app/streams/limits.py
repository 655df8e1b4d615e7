"""Limits that all web nodes share: buckets in Redis, each set of charges one atomic step.

``RedisLimiter`` counts there, ``MemoryLimiter`` in this process, with the same outcomes. When
Redis does not answer, the first raises ``Unavailable`` within a bounded time, and whoever asked
decides which way is the safe one: reading goes on uncounted, signing in is counted by the second
under stricter rates (``SignInLimits``).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import hiredis
import structlog

from app.domain.errors import RateLimited, Unavailable
from app.domain.rates import Charge, Rate, Verdict, judge, overflows
from app.streams import keys, scripts
from app.streams.connection import pipe_of, reachable
from app.streams.scripts import Call

if TYPE_CHECKING:
    from redis.asyncio import Redis

_PAUSE_SECONDS = 1.0
"""How long Redis is left alone after a failure."""

_SUBJECTS = 10_000
"""Buckets that a process remembers for itself; the oldest go first."""

_US = 1_000_000
_MINUTE = 60
_HOUR = 3600

_FREE_TRIES = 5
_LONGEST_WAIT_SECONDS = 900
_ALONE_PER_ACCOUNT = Rate(5, _MINUTE)
_ALONE_PER_ADDRESS = Rate(20, _MINUTE)
"""What one process lets pass by itself; a cluster's nodes add up."""

_Asked: TypeAlias = tuple[Call, "asyncio.Future[Any]"]

logger = structlog.get_logger(__name__)


class Limiter(Protocol):
    """Counts what a subject (a user, an address) does."""

    async def take(
        self, subject: str, charges: Sequence[Charge], *, now_us: int | None = None
    ) -> Verdict:
        """Count in all buckets, or in none where one would overflow.

        ``now_us`` is for tests: the time in microseconds in place of the clock's. Raises
        ``Unavailable`` where nothing could be counted.
        """
        ...


class RedisLimiter:
    """``Limiter`` in Redis, by its clock: the same buckets for every node.

    Calls that come while one is under way go together with the next, so that a busy node pays for
    few round trips.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait ``timeout_seconds`` at most for an answer, and for a second after that not at all.

        ``redis`` says where to connect; the connection is one of our own.
        """
        self._pipe = pipe_of(redis)
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._limit = scripts.load("limit")
        self._sign_in = scripts.load("sign_in")
        self._asked_again_at = 0.0
        self._waiting: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None

    async def take(
        self, subject: str, charges: Sequence[Charge], *, now_us: int | None = None
    ) -> Verdict:
        """See ``Limiter``."""
        arguments: list[int | str] = ["" if now_us is None else now_us]
        for charge in charges:
            arguments += (charge.rate.capacity_us, charge.amount_us)
        buckets = [keys.limit(subject, charge.bucket) for charge in charges]
        outcome, *filled = await self._run(Call(self._limit, buckets, arguments))
        return judge(charges, filled, allowed=outcome == b"ALLOWED")

    async def try_account(
        self,
        account: str,
        address: str,
        charge: Charge,
        *,
        now_us: int | None = None,
    ) -> int:
        """Count a try to sign in; give 0, or in whole seconds how long there may be none.

        ``charge`` is the account's own, whatever the address.
        """
        call = Call(
            self._sign_in,
            (keys.sign_in(account, address), keys.limit(account, charge.bucket)),
            (
                "" if now_us is None else now_us,
                _FREE_TRIES,
                _LONGEST_WAIT_SECONDS * _US,
                # Who waits out the longest wait has not begun anew by that.
                4 * _LONGEST_WAIT_SECONDS * 1000,
                charge.rate.capacity_us,
                charge.amount_us,
            ),
        )
        _, wait_us = await self._run(call)
        return -(-int(wait_us) // _US)

    async def forget(self, account: str, address: str) -> None:
        """Forget the tries of one address at an account."""
        with reachable():
            await self._exchange(("DEL", keys.sign_in(account, address)))

    async def close(self) -> None:
        """End the connection; calls under way raise ``Unavailable``."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait((self._sending,))
            # A task that was cancelled before it began has told nobody.
            _tell(self._waiting, Unavailable("the limiter was stopped"))
        self._pipe.close()

    async def _exchange(self, *commands: Sequence[str]) -> None:
        async with asyncio.timeout(self._timeout_seconds):
            await self._pipe.exchange(commands)

    async def _run(self, call: Call) -> Any:
        if self._clock() < self._asked_again_at:
            raise Unavailable("Redis did not answer a moment ago")
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, reply))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        return await reply

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    with reachable():
                        async with asyncio.timeout(self._timeout_seconds):
                            replies = await scripts.run_all(self._pipe, [call for call, _ in batch])
                except Unavailable as failure:
                    self._fail(batch, failure)
                    continue
                except BaseException:
                    waiting, self._waiting = self._waiting, []
                    _tell([*batch, *waiting], Unavailable("the limiter was stopped"))
                    raise
                for asked, reply in zip(batch, replies, strict=True):
                    # Refused while loading, without memory, as a replica: nothing was counted.
                    if isinstance(reply, hiredis.ReplyError):
                        self._fail([asked], Unavailable("Redis refuses to count"))
                    elif not asked[1].done():
                        asked[1].set_result(reply)
        finally:
            self._sending = None

    def _fail(self, batch: list[_Asked], failure: Unavailable) -> None:
        # Otherwise each request would wait for itself, one bound after the other. What came
        # meanwhile has waited for as long as it may.
        if self._clock() >= self._asked_again_at:
            logger.warning("limits_not_counted", reason=failure.detail)
        self._asked_again_at = self._clock() + _PAUSE_SECONDS
        waiting, self._waiting = self._waiting, []
        _tell([*batch, *waiting], failure)


class MemoryLimiter:
    """``Limiter`` in this process, for what must not go uncounted while Redis is away."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._empty_at_us: dict[tuple[str, str], int] = {}

    async def take(
        self, subject: str, charges: Sequence[Charge], *, now_us: int | None = None
    ) -> Verdict:
        """See ``Limiter``; never raises."""
        return self.count(subject, charges, now_us=now_us)

    def count(
        self, subject: str, charges: Sequence[Charge], *, now_us: int | None = None
    ) -> Verdict:
        """Do the same without waiting."""
        now = int(self._clock() * _US) if now_us is None else now_us
        buckets = [(subject, charge.bucket) for charge in charges]
        filled = [max(self._empty_at_us.get(bucket, 0) - now, 0) for bucket in buckets]
        if any(map(overflows, charges, filled)):
            return judge(charges, filled, allowed=False)
        filled = [
            max(before + charge.amount_us, 0)
            for before, charge in zip(filled, charges, strict=True)
        ]
        for bucket, after in zip(buckets, filled, strict=True):
            # Taken out first, so that the order is that of the last use.
            self._empty_at_us.pop(bucket, None)
            if after:
                self._empty_at_us[bucket] = now + after
        while len(self._empty_at_us) > _SUBJECTS:
            del self._empty_at_us[next(iter(self._empty_at_us))]
        return judge(charges, filled, allowed=True)


class SignInRates(NamedTuple):
    """How often signing in may fail in an hour, 0 for no limit."""

    per_account: int
    per_address: int


class SignInLimits:
    """How often one may try to sign in.

    A try is counted before the password is looked at, and taken back where it was right, so that
    only failures are left. Three things bound them:

    - From one address at one account the sixth failure costs a wait of a second, each further one
      twice the wait before, up to 15 minutes. An attacker's tries lengthen nobody else's wait.
    - One account takes so many failures an hour from all addresses together. At that ceiling a
      place comes free every few seconds, also for the owner: nobody is locked out for long.
    - One address may fail so often in an hour, at whatever accounts.

    While Redis does not answer, this process counts by itself, less than it would there.
    """

    def __init__(
        self,
        limiter: RedisLimiter,
        rates: SignInRates,
        *,
        refused: Callable[[str], None] = lambda _: None,
        failed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Tell ``refused`` the bucket of each refusal, and ``failed`` of each silence of Redis."""
        self._limiter = limiter
        self._alone = MemoryLimiter(clock)
        self._account = _charge("sign_in_account", rates.per_account)
        self._address = _charge("sign_in_address", rates.per_address)
        self._tell_refused = refused
        self._tell_failed = failed

    async def check(self, account: str, address: str) -> None:
        """Count a try; raise RateLimited where there may be none now.

        ``account`` is what was typed as a name, known or not; ``address`` is the client's.
        """
        subject, place = _account_of(account), f"address:{address}"
        try:
            if self._address is not None:
                verdict = await self._limiter.take(place, (self._address,))
                if not verdict.allowed:
                    raise self._refusal(verdict.bucket, verdict.retry_after_seconds)
            if self._account is not None:
                wait = await self._limiter.try_account(subject, address, self._account)
                if wait:
                    raise self._refusal(self._account.bucket, wait)
        except Unavailable:
            self._tell_failed()
            self._check_alone(subject, place)

    async def failed(self, account: str, address: str) -> None:
        """Say that the password was wrong: the try stays counted."""

    async def succeeded(self, account: str, address: str) -> None:
        """Say that the password was right: this try is taken back, and those before forgotten.

        Forgotten are those of this address at this account; other addresses' stay counted.
        """
        subject, place = _account_of(account), f"address:{address}"
        try:
            await self._limiter.forget(subject, address)
            for charge, whose in ((self._account, subject), (self._address, place)):
                if charge is not None:
                    await self._limiter.take(whose, (charge._replace(cost=-1),))
        except Unavailable:
            # They are forgotten by themselves in time.
            self._tell_failed()

    def _check_alone(self, subject: str, place: str) -> None:
        for whose, charge in (
            (subject, Charge("sign_in_account", _ALONE_PER_ACCOUNT)),
            (place, Charge("sign_in_address", _ALONE_PER_ADDRESS)),
        ):
            verdict = self._alone.count(whose, (charge,))
            if not verdict.allowed:
                raise self._refusal(verdict.bucket, verdict.retry_after_seconds)

    def _refusal(self, bucket: str, wait_seconds: int) -> RateLimited:
        self._tell_refused(bucket)
        return RateLimited(wait_seconds, "Too many tries to sign in")


def _tell(asked: list[_Asked], failure: Unavailable) -> None:
    for _, answer in asked:
        if not answer.done():
            answer.set_exception(failure)


def _charge(bucket: str, limit: int) -> Charge | None:
    return Charge(bucket, Rate(limit, _HOUR)) if limit else None


def _account_of(name: str) -> str:
    """Name the subject of an account: of any length, and no name of anybody in Redis."""
    digest = hashlib.blake2b(name.strip().casefold().encode("utf-8", "replace"), digest_size=16)
    return f"account:{digest.hexdigest()}"
