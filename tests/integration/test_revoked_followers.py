"""A follower whose credential is revoked, at the moments at which that could be missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.chat.following import Follower, FollowingLimits
from app.chat.reading import Reading
from app.db.engine import Database
from app.domain.errors import Unauthenticated
from app.domain.frames import Bye, ByeReason, Entries, Frame, History, Welcome
from tests.support.conversations import Talker
from tests.support.memory_node import CALLER, MemoryNode
from tests.support.room import SESSION, Room

REVOKED = Bye(ByeReason.TOKEN_EXPIRED, reconnect=False, after_ms=0)
COOKIE = CALLER._replace(credential="cookie", expires_at=1.0)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with Room.open() as room:
        yield room


@pytest.fixture
async def node(database: Database, room: Room) -> MemoryNode:
    """A node whose streams send nothing by themselves, and a session of ada's."""
    await (await Talker(database, "ada", SESSION).arrive()).ask()
    return MemoryNode(
        room.memory,
        Reading(database, room.memory),
        database=database,
        limits=FollowingLimits(3600, 3600, 8),
    )


def _revoke(node: MemoryNode) -> None:
    node.following.is_revoked = lambda _: True
    node.following.end_revoked()


def _revoke_while_it_looks(
    node: MemoryNode, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoke after the follower has judged its credential, and before it knows what to wait for."""
    tail = follower._held
    ready = tail.ready

    async def revoked_meanwhile() -> None:
        _revoke(node)
        await ready()

    monkeypatch.setattr(tail, "ready", revoked_meanwhile)


async def _frame(frames: AsyncIterator[Frame]) -> Frame:
    async with asyncio.timeout(20):
        return await anext(frames)


async def _live(follower: Follower) -> AsyncIterator[Frame]:
    frames = follower.frames()
    assert isinstance(await _frame(frames), Welcome)
    assert isinstance(await _frame(frames), History)
    return frames


async def test_a_stream_ends_though_it_was_told_while_it_looked(
    node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = await node.following.open(CALLER, SESSION, None, "sse")
    frames = await _live(follower)
    _revoke_while_it_looks(node, follower, monkeypatch)
    assert await _frame(frames) == REVOKED
    await follower.close()


async def test_a_poll_ends_though_it_was_told_while_it_looked(
    node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await node.following.open(CALLER, SESSION, None, "poll")
    stands = (await first.poll(0)).position
    await first.close()
    follower = await node.following.open(CALLER, SESSION, stands, "poll")
    _revoke_while_it_looks(node, follower, monkeypatch)
    async with asyncio.timeout(20):
        with pytest.raises(Unauthenticated):
            await follower.poll(3600)
    await follower.close()


async def test_what_comes_with_the_revocation_is_not_shown(
    node: MemoryNode, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = await node.following.open(CALLER, SESSION, None, "sse")
    frames = await _live(follower)
    entries = follower._entries
    shown: list[Entries] = []

    def revoked_meanwhile(found: list[object]) -> Entries:
        _revoke(node)
        shown.append(entries(found))  # type: ignore[arg-type]
        return shown[-1]

    monkeypatch.setattr(follower, "_entries", revoked_meanwhile)
    await room.scribe.ask()
    await node.tails.check()
    assert await _frame(frames) == REVOKED
    assert shown, "there was something to show"
    await follower.close()


async def test_only_whom_it_concerns_is_woken(node: MemoryNode) -> None:
    follower = await node.following.open(CALLER, SESSION, None, "sse")
    changed = follower._held.changed
    node.following.is_revoked = lambda caller: caller.user_id == "bob"
    node.following.end_revoked()
    assert not changed.done()
    node.following.is_revoked = lambda caller: caller.user_id == CALLER.user_id
    await follower.close()
    node.following.end_revoked()
    assert not changed.done(), "one that has left is not looked for"


async def test_a_cookie_that_is_to_be_renewed_ends_a_stream_and_no_poll(node: MemoryNode) -> None:
    follower = await node.following.open(COOKIE, SESSION, None, "sse")
    frames = follower.frames()
    assert isinstance(await _frame(frames), Welcome)
    assert await _frame(frames) == Bye(ByeReason.LIFETIME, reconnect=True, after_ms=0)
    assert (await follower.poll(0)).history is not None
    _revoke(node)
    with pytest.raises(Unauthenticated):
        await follower.poll(0)
    await follower.close()
