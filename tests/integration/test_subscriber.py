"""A process's one subscription: it comes back, and says when something may be missing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.streams import subscriber as subscriber_module
from app.streams.embedded import EmbeddedRedis
from app.streams.subscriber import Subscriber
from tests.support.peers import accepting
from tests.support.valkey import access, acl, refusals
from tests.support.waiting import eventually

_MARKER = "marker"


class _Ear:
    """A subscriber and all that it was told."""

    def __init__(self, url: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.confirmed: Counter[str] = Counter()
        self.subscriber = Subscriber(
            url,
            on_message=lambda channel, payload: self.heard.append((channel, payload)),
            on_subscribed=lambda channel: self.confirmed.update([channel]),
        )

    def subscribe(self, channels: Iterable[str]) -> None:
        for channel in channels:
            self.subscriber.subscribe(channel)

    async def until_confirmed(self, *channels: str, times: int = 1) -> None:
        await eventually(
            lambda: all(self.confirmed[channel] >= times for channel in channels) or None,
            f"{channels} are confirmed {times} times",
        )

    async def until_heard(self, channel: str, payload: bytes) -> None:
        await eventually(lambda: (channel, payload) in self.heard, f"{payload!r} on {channel}")


@asynccontextmanager
async def _listening(url: str, *channels: str) -> AsyncIterator[_Ear]:
    ear = _Ear(url)
    ear.subscribe(channels)
    ear.subscriber.start()
    try:
        yield ear
    finally:
        await ear.subscriber.close()


@pytest.fixture
async def ear(redis_url: str) -> AsyncIterator[_Ear]:
    """Listen to the marker, which tells that what was published before it has arrived."""
    async with _listening(redis_url, _MARKER) as ear:
        await ear.until_confirmed(_MARKER)
        yield ear


async def _cut(redis: Redis) -> None:
    assert await redis.client_kill_filter(_type="pubsub") == 1


async def test_publications_arrive_in_order_byte_for_byte(ear: _Ear, redis: Redis) -> None:
    payloads = [b"", b"\x00\xff\r\n", "\U0001f469\u200d\U0001f680".encode(), b"x" * 300_000]
    for payload in payloads:
        assert await redis.publish(_MARKER, payload) == 1
    await ear.until_heard(_MARKER, payloads[-1])
    assert ear.heard == [(_MARKER, payload) for payload in payloads]


async def test_after_a_cut_all_is_confirmed_again_and_goes_on(ear: _Ear, redis: Redis) -> None:
    ear.subscribe(["one", "two"])
    await ear.until_confirmed("one", "two")
    assert ear.confirmed == {_MARKER: 1, "one": 1, "two": 1}
    for times in (2, 3):
        await _cut(redis)
        await ear.until_confirmed(_MARKER, "one", "two", times=times)
        assert await redis.publish("one", str(times)) == 1
        await ear.until_heard("one", str(times).encode())
    assert ear.confirmed == {_MARKER: 3, "one": 3, "two": 3}


async def test_what_is_subscribed_while_there_is_no_connection_is_not_forgotten(
    ear: _Ear, redis: Redis
) -> None:
    await _cut(redis)
    await eventually(lambda: not ear.subscriber.connected, "the cut is noticed")
    ear.subscriber.subscribe("meanwhile")
    ear.subscriber.unsubscribe(_MARKER)
    await ear.until_confirmed("meanwhile")
    assert await redis.publish(_MARKER, "x") == 0
    assert await redis.publish("meanwhile", "x") == 1
    await ear.until_heard("meanwhile", b"x")


async def test_subscriptions_that_come_together_are_all_there(redis_url: str, redis: Redis) -> None:
    """Before the connection, while it is made, and on it: none is lost between the three."""
    early, midway, late = ([f"{name}-{n}" for n in range(100)] for name in ("a", "b", "c"))
    async with _listening(redis_url, *early) as ear:
        await asyncio.sleep(0)
        ear.subscribe(midway)
        await eventually(lambda: ear.subscriber.connected, "the connection is there")
        ear.subscribe(late)
        await ear.until_confirmed(*early, *midway, *late)
        for channel in (*early, *midway, *late):
            assert await redis.publish(channel, channel) == 1
        await ear.until_heard(late[-1], late[-1].encode())
        assert [channel for channel, _ in ear.heard] == [*early, *midway, *late]


async def test_what_is_not_wanted_any_more_is_not_told(ear: _Ear, redis: Redis) -> None:
    ear.subscriber.subscribe("left")
    await ear.until_confirmed("left")
    ear.subscriber.unsubscribe("left")
    # Wanted for a moment only: when its confirmation comes, nobody waits for it.
    ear.subscriber.subscribe("brief")
    ear.subscriber.unsubscribe("brief")
    ear.subscriber.subscribe("last")
    await ear.until_confirmed("last")
    assert await redis.publish("left", "x") == 0
    assert await redis.publish("brief", "x") == 0
    await _cut(redis)
    await ear.until_confirmed(_MARKER, "last", times=2)
    assert ear.confirmed == {_MARKER: 2, "left": 1, "last": 2}
    assert ear.heard == []


async def test_left_and_wanted_again_is_wanted(ear: _Ear, redis: Redis) -> None:
    ear.subscriber.subscribe("one")
    ear.subscriber.unsubscribe("one")
    ear.subscriber.subscribe("one")
    ear.subscriber.subscribe("last")
    await ear.until_confirmed("one", "last")
    assert await redis.publish("one", "x") == 1
    await ear.until_heard("one", b"x")


async def test_after_its_end_nothing_is_told(redis_url: str, redis: Redis) -> None:
    async with _listening(redis_url, "one") as ear:
        await ear.until_confirmed("one")
        await ear.subscriber.close()
        assert not ear.subscriber.connected
        async with asyncio.timeout(5):
            while await redis.publish("one", "x"):
                pass
    assert ear.confirmed == {"one": 1}


async def test_a_subscriber_that_was_not_started_can_be_closed(redis_url: str) -> None:
    await _Ear(redis_url).subscriber.close()


async def test_a_server_that_comes_later_and_goes_and_comes_is_found(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    async with _listening(server.url, "one") as ear:
        for times in (1, 2):
            await server.start()
            try:
                await ear.until_confirmed("one", times=times)
            finally:
                await server.stop()
            await eventually(lambda: not ear.subscriber.connected, "its end is noticed")


async def test_a_refused_subscription_is_tried_until_it_is_allowed(
    redis_url: str, redis: Redis
) -> None:
    url = redis_url.replace("unix://", "unix://deaf:pw@")
    async with (
        access(redis, "deaf", "on", ">pw", "+@all", "resetchannels"),
        _listening(url, "one") as ear,
    ):
        await _until_refused(redis, "channel")
        assert not ear.confirmed
        await acl(redis, "SETUSER", "deaf", "allchannels")
        await ear.until_confirmed("one")


async def test_a_password_that_was_wrong_is_tried_until_it_is_right(
    redis_url: str, redis: Redis
) -> None:
    url = redis_url.replace("unix://", "unix://late:pw@")
    async with (
        access(redis, "late", "on", ">other", "+@all", "allchannels"),
        _listening(url, "one") as ear,
    ):
        await _until_refused(redis, "auth")
        await acl(redis, "SETUSER", "late", ">pw")
        await ear.until_confirmed("one")
        assert await redis.publish("one", "x") == 1


async def _until_refused(redis: Redis, reason: str) -> None:
    async with asyncio.timeout(10):
        while not await refusals(redis, reason):
            pass


async def test_a_peer_that_falls_silent_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-open: no error ever comes, so what tells it is the reply to a ping that does not."""
    monkeypatch.setattr(subscriber_module, "_PING_SECONDS", 0.01)
    monkeypatch.setattr(subscriber_module, "_SILENCE_SECONDS", 0.05)
    connections: list[bytes] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = len(connections)
        connections.append(b"")
        while received := await reader.read(65_536):
            connections[at] += received

    path = tmp_path / "frozen.sock"
    async with accepting(swallow, path), _listening(f"unix://{path}", "one"):
        await eventually(lambda: len(connections) > 2, "it connects again and again")
    assert b"PING" in connections[0]
    assert all(b"SUBSCRIBE" in received for received in connections[:2])


async def test_a_peer_that_answers_pings_is_kept(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing published for far longer than the silence that is allowed."""
    monkeypatch.setattr(subscriber_module, "_PING_SECONDS", 0.005)
    monkeypatch.setattr(subscriber_module, "_SILENCE_SECONDS", 1.0)

    async def pings() -> int:
        statistics = await redis.info("commandstats")
        return int(statistics["cmdstat_ping"]["calls"]) if "cmdstat_ping" in statistics else 0

    begun = await pings()
    async with _listening(redis_url, "one") as ear:
        async with asyncio.timeout(10):
            while await pings() < begun + 300:
                pass
        assert ear.subscriber.connected
        assert ear.confirmed == {"one": 1}
