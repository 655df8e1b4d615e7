"""The session log on a real server: lifetimes of keys, scripts it forgot, and what it refuses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from app.domain.errors import Unavailable
from app.domain.events import SessionChanged, Start, new_entry
from app.domain.lease import Lease
from app.domain.position import BEFORE_ALL
from app.models.client import Reasoning
from app.streams import keys
from app.streams.connection import connect
from app.streams.link import Part
from app.streams.redis_log import RedisSessionLog
from app.streams.session_log import AppendBatch, AppendOutcome, Claimed
from tests.support.scribe import LEASE_MS, Scribe, Writing, known
from tests.support.valkey import access

_SESSION = "s-1"
_TTL_SECONDS = 60
_ENTRY = new_entry(SessionChanged(_SESSION, "Title"))
_LEASE = Lease(_SESSION, "worker-1", 1)


@pytest.fixture
async def log(redis: Redis) -> AsyncIterator[RedisSessionLog]:
    log = RedisSessionLog(redis, ttl_seconds=_TTL_SECONDS, max_entries=1000)
    yield log
    log.close()


@pytest.fixture
def scribe(log: RedisSessionLog) -> Scribe:
    return Scribe(log, _SESSION)


async def _writing(scribe: Scribe) -> Writing:
    writing = await scribe.begin(await scribe.ask())
    assert writing is not None
    return writing


async def _lifetimes(redis: Redis) -> dict[str, int]:
    """Give every key's remaining time in ms; -1 where it has none."""
    return {os.fsdecode(key): await redis.pttl(key) for key in await redis.keys()}


class TestLifetimes:
    async def _check(self, redis: Redis, *expected: str) -> None:
        lifetimes = await _lifetimes(redis)
        assert set(lifetimes) == set(expected)
        for name, milliseconds in lifetimes.items():
            bound = LEASE_MS if name == keys.owner(_SESSION) else _TTL_SECONDS * 1000
            assert 0 < milliseconds <= bound, name

    async def test_every_key_has_one_after_every_transition(
        self, scribe: Scribe, redis: Redis
    ) -> None:
        log, active, token, owner, partial = (
            name(_SESSION) for name in (keys.log, keys.active, keys.token, keys.owner, keys.partial)
        )
        await scribe.rename("Title")
        await self._check(redis, log, active)
        answer = await scribe.ask()
        await self._check(redis, log, active)
        claimed = await scribe.log.claim(_SESSION, answer, "worker-1", LEASE_MS)
        assert isinstance(claimed, Claimed)
        await self._check(redis, log, active, token, owner)
        writing = await scribe.start(claimed, answer)
        await self._check(redis, log, active, token, owner)
        await writing.write("one")
        await self._check(redis, log, active, token, owner, partial)
        await writing.write(Reasoning("why"), "two")
        reasoning = keys.reasoning(_SESSION)
        await self._check(redis, log, active, token, owner, partial, reasoning)
        await scribe.log.cancel(_SESSION, answer, 1)
        cancel = keys.cancel(_SESSION, answer)
        await self._check(redis, log, active, token, owner, partial, reasoning, cancel)
        await scribe.log.release(writing.lease)
        again = await scribe.begin(answer)
        assert again is not None
        await self._check(redis, log, active, token, owner, partial, reasoning, cancel)
        await again.finish()
        # What is left of the answer is which run of the server wrote it.
        await self._check(redis, log, active, token)
        await scribe.ask()
        await scribe.delete()
        await self._check(redis, token)

    async def test_a_log_that_a_worker_begins_has_one(self, log: Any, redis: Redis) -> None:
        claimed = await log.claim(_SESSION, "a-1", "worker-1", LEASE_MS)
        await log.finish(claimed.lease, "a-1", 1, _ENTRY)
        await self._check(redis, keys.log(_SESSION), keys.token(_SESSION))

    async def test_while_a_lease_is_renewed_nothing_of_the_answer_expires(
        self, scribe: Scribe, redis: Redis
    ) -> None:
        writing = await _writing(scribe)
        await writing.write(Reasoning("why"), "so far")
        for name in await redis.keys():
            await redis.pexpire(name, 5_000)
        await scribe.log.renew([(writing.lease, writing.answer, 1)], 9_000)
        lifetimes = await _lifetimes(redis)
        assert 5_000 < lifetimes.pop(keys.owner(_SESSION)) <= 9_000
        assert len(lifetimes) == 5
        assert all(milliseconds > 50_000 for milliseconds in lifetimes.values()), lifetimes

    async def test_a_lease_is_named_and_timed_as_it_was_asked_for(
        self, scribe: Scribe, redis: Redis
    ) -> None:
        writing = await _writing(scribe)
        assert await redis.get(keys.owner(_SESSION)) == writing.lease.owner.encode()
        seconds, microseconds = await redis.time()
        assert writing.lease.token <= seconds * 1_000_000 + microseconds
        assert writing.lease.token > (seconds - 60) * 1_000_000

    async def test_all_keys_of_a_session_are_in_one_slot(
        self, scribe: Scribe, redis: Redis
    ) -> None:
        writing = await _writing(scribe)
        await writing.write(Reasoning("why"), "text")
        await scribe.log.cancel(_SESSION, writing.answer, 1)
        names = [os.fsdecode(key) for key in await redis.keys()]
        assert len(names) == 7
        tags = {name[name.index("{") + 1 : name.index("}")] for name in names}
        assert tags == {_SESSION}


class TestForgottenScripts:
    async def test_every_method_does_without(self, scribe: Scribe, redis: Redis) -> None:
        """A restarted server knows no script; nobody above notices."""
        real = scribe.log

        class Forgetful:
            def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
                async def call(*arguments: Any, **named: Any) -> Any:
                    await redis.script_flush()
                    return await getattr(real, name)(*arguments, **named)

                return call

        log: Any = Forgetful()
        scribe.log = log
        writing = await _writing(scribe)
        assert await writing.write("one ", "two") is AppendOutcome.OK
        outcomes = await log.renew([(writing.lease, writing.answer, 1)], LEASE_MS)
        assert outcomes == [AppendOutcome.OK]
        await log.release(writing.lease)
        again = await scribe.begin(writing.answer, "worker-2")
        assert again is not None
        assert again.text == "one two"
        assert await log.cancel(_SESSION, writing.answer, 1) == "worker-2"
        assert (await log.snapshot(_SESSION)).active.text == "one two"
        assert await again.finish() is AppendOutcome.OK
        await scribe.rename("Title")
        assert len((await log.read(_SESSION, BEFORE_ALL, 100)).entries) == 7
        await scribe.delete()
        assert await log.tails([_SESSION]) == [BEFORE_ALL]

    @pytest.mark.parametrize("forgets_before", [0, 1, 4, 7])
    async def test_a_flush_in_whose_middle_they_are_forgotten_is_written_once(
        self, log: RedisSessionLog, monkeypatch: pytest.MonkeyPatch, forgets_before: int
    ) -> None:
        scribes = [Scribe(log, f"s-{number}") for number in range(8)]
        writings = [await _writing(scribe) for scribe in scribes]
        for writing in writings:
            await writing.write("known, ")
        pipe = log._pipe
        exchange = pipe.exchange
        sent: list[int] = []

        async def forget(commands: Sequence[Sequence[Part]]) -> list[Any]:
            sent.append(len(commands))
            if len(sent) > 1:
                return await exchange(commands)
            before, after = commands[:forgets_before], commands[forgets_before:]
            replies = await exchange([*before, ("SCRIPT", "FLUSH"), *after])
            assert replies.pop(forgets_before) == b"OK"
            return replies

        monkeypatch.setattr(pipe, "exchange", forget)
        batches = [writing.batch(f"text {number}") for number, writing in enumerate(writings)]
        assert await log.append(batches) == [AppendOutcome.OK] * 8
        assert sent == [8, 8 - forgets_before]
        for number, scribe in enumerate(scribes):
            snapshot = await log.snapshot(scribe.session_id)
            assert known(snapshot.active).text == f"known, text {number}"
            assert snapshot.position.seq == 3


class TestRefusals:
    async def test_one_session_s_broken_key_holds_up_nobody_else(
        self, log: RedisSessionLog, redis: Redis
    ) -> None:
        broken, whole = Scribe(log, "s-1"), Scribe(log, "s-2")
        first, second = await _writing(broken), await _writing(whole)
        await redis.delete(keys.partial("s-1"))
        await redis.rpush(keys.partial("s-1"), "not a text")
        await redis.expire(keys.partial("s-1"), 10)
        with structlog.testing.capture_logs() as logged:
            outcomes = await log.append([first.batch("x"), second.batch("text")])
        assert outcomes == [AppendOutcome.LOST, AppendOutcome.OK]
        assert [line["event"] for line in logged] == ["session_log_refused"]
        assert "WRONGTYPE" in logged[0]["reason"]
        assert known((await log.snapshot("s-2")).active).text == "text"

    async def test_a_full_server_fails_the_whole_flush_and_writes_nothing(
        self, log: RedisSessionLog, redis: Redis
    ) -> None:
        """Its state passes; the very same flush goes through then."""
        scribes = [Scribe(log, f"s-{number}") for number in range(3)]
        batches = [(await _writing(scribe)).batch("text") for scribe in scribes]
        await redis.config_set("maxmemory", 1)
        try:
            with pytest.raises(Unavailable):
                await log.append(batches)
        finally:
            await redis.config_set("maxmemory", 0)
        assert [tail.seq for tail in await log.tails([s.session_id for s in scribes])] == [1] * 3
        assert await log.append(batches) == [AppendOutcome.OK] * 3

    async def test_what_may_not_be_published_is_written_all_the_same(
        self, redis_url: str, redis: Redis
    ) -> None:
        """Nodes find it by their look at the tail; a half-done script would be worse."""
        url = redis_url.replace("unix://", "unix://mute:pw@")
        async with access(redis, "mute", "on", ">pw", "+@all", "allkeys", "resetchannels"):
            mute = connect(url, timeout_seconds=5, max_connections=2)
            log = RedisSessionLog(mute, ttl_seconds=_TTL_SECONDS, max_entries=1000)
            try:
                scribe = Scribe(log, _SESSION)
                writing = await _writing(scribe)
                assert await writing.write("one ", "two") is AppendOutcome.OK
                assert await log.cancel(_SESSION, writing.answer, 1) == "worker-1"
                assert await writing.finish() is AppendOutcome.OK
                assert len((await log.read(_SESSION, BEFORE_ALL, 100)).entries) == 5
            finally:
                log.close()
                await mute.aclose(close_connection_pool=True)


async def test_of_many_who_claim_at_once_one_holds_it(log: RedisSessionLog, redis: Redis) -> None:
    claims = await asyncio.gather(
        *(log.claim(_SESSION, "a-1", f"worker-{number}", LEASE_MS) for number in range(20))
    )
    (claimed,) = [claim for claim in claims if isinstance(claim, Claimed)]
    assert await redis.get(keys.owner(_SESSION)) == claimed.lease.owner.encode()


_START = new_entry(Start("a-1", 1, "demo", ""))

_CALLS: dict[str, Callable[[RedisSessionLog], Awaitable[object]]] = {
    "submit": lambda log: log.submit(_SESSION, "a-1", 0, [_ENTRY], pristine=True),
    "record": lambda log: log.record(_SESSION, [_ENTRY], pristine=True),
    "claim": lambda log: log.claim(_SESSION, "a-1", "worker-1", LEASE_MS),
    "start": lambda log: log.start(
        _LEASE, "a-1", 1, kept="", entries=[_START], entries_if_unknown=[]
    ),
    "append": lambda log: log.append([AppendBatch(_LEASE, "a-1", 1, 0, "x", [_START])]),
    "renew": lambda log: log.renew([(_LEASE, "a-1", 1)], LEASE_MS),
    "finish": lambda log: log.finish(_LEASE, "a-1", 1, _ENTRY),
    "release": lambda log: log.release(_LEASE),
    "cancel": lambda log: log.cancel(_SESSION, "a-1", 1),
    "snapshot": lambda log: log.snapshot(_SESSION),
    "read": lambda log: log.read(_SESSION, BEFORE_ALL, 10),
    "tails": lambda log: log.tails([_SESSION]),
    "delete": lambda log: log.delete(_SESSION, _ENTRY),
}


@pytest.mark.parametrize("call", _CALLS)
async def test_without_a_server_every_method_is_unavailable(call: str) -> None:
    redis = connect("unix:///nonexistent/valkey.sock", timeout_seconds=1, max_connections=1)
    log = RedisSessionLog(redis, ttl_seconds=_TTL_SECONDS, max_entries=1000)
    with pytest.raises(Unavailable):
        await _CALLS[call](log)
