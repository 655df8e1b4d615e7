"""Followers on a log in memory: what each is given first, what then, and what ends a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from app.chat import following as following_module
from app.chat.following import Follower, FollowingLimits
from app.chat.reading import Reading
from app.db import sessions
from app.db.engine import Database
from app.domain.caller import Caller
from app.domain.errors import NotFound, TooManyConnections, Unavailable
from app.domain.frames import (
    Bye,
    ByeReason,
    Entries,
    Frame,
    Heartbeat,
    History,
    HistoryReason,
    Welcome,
)
from app.domain.position import BEFORE_ALL, Position
from tests.support.conversations import NOON, Talker, no_events
from tests.support.databases import NewDatabase
from tests.support.memory_node import CALLER, MemoryNode
from tests.support.room import SESSION, Room, seqs, turns
from tests.support.waiting import eventually


def _reason(frame: Frame) -> HistoryReason:
    assert isinstance(frame, History), frame
    return frame.reason


class TestFollower:
    async def test_without_a_position_the_whole_state_comes_first(self) -> None:
        async with Room.open() as room:
            writing = await room.answering("a", "b")
            async with room.follower() as following:
                history = await following()
                assert isinstance(history, History)
                assert history.reason is HistoryReason.INITIAL
                assert history.messages[1].content == "ab"
                assert history.position == "1000-3"
                await writing.write("c")
                assert seqs(await following()) == [4]

    async def test_beyond_the_ring_is_read_from_the_log(self) -> None:
        async with Room.open(ring_entries=4) as room:
            await room.answering(*"abcdefghij")
            async with room.live(), room.follower(Position(1000, 2)) as following:
                room.distant.calls.clear()
                assert seqs(await following()) == list(range(3, 12))
                assert room.distant.calls["read"] == 1

    async def test_a_slow_follower_is_served_from_the_log(self) -> None:
        async with Room.open(ring_entries=4) as room:
            writing = await room.answering("a")
            async with room.live() as following:
                for piece in "bcdefghij":
                    await writing.write(piece)
                assert seqs(await following()) == list(range(3, 12))

    async def test_beyond_the_log_the_whole_state_takes_its_place(self) -> None:
        async with Room.open(ring_entries=4, max_entries=6) as room:
            writing = await room.answering("a")
            async with room.live() as following:
                await writing.write(*"bcdefghij")
                history = await following()
                assert _reason(history) is HistoryReason.TRIMMED
                assert isinstance(history, History)
                assert history.messages[1].content == "abcdefghij"
                await writing.write("k")
                assert seqs(await following()) == [12]

    async def test_much_is_given_in_frames_of_a_bounded_size(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(following_module, "_FRAME_ENTRIES", 3)
        async with Room.open() as room:
            await room.answering(*"abcde")
            async with room.follower(Position(1000, 0)) as following:
                assert [seqs(await following()) for _ in range(2)] == [[1, 2, 3], [4, 5, 6]]

    @pytest.mark.parametrize(
        ("after", "reason"),
        [
            (Position(1000, 99), HistoryReason.EPOCH),
            (Position(999, 1), HistoryReason.EPOCH),
            (Position(2000, 0), HistoryReason.EPOCH),
        ],
    )
    async def test_a_position_that_never_was_gets_the_whole_state(
        self, after: Position, reason: HistoryReason
    ) -> None:
        async with Room.open() as room:
            await room.answering("a")
            async with room.follower(after) as following:
                assert _reason(await following()) is reason

    async def test_a_position_that_the_node_was_not_told_of_yet_is_looked_up(self) -> None:
        """A snapshot read elsewhere may be newer than what was published here."""
        async with Room.open() as room:
            writing = await room.answering("a")
            async with room.live():
                room.deaf = True
                await writing.write("b", "c")
                async with room.follower(Position(1000, 3)) as following:
                    assert seqs(await following()) == [4]

    async def test_a_log_that_is_lost_is_told_while_connected(self) -> None:
        async with Room.open() as room:
            writing = await room.answering("a")
            async with room.live() as following:
                room.memory.lose_everything()
                await room.tails.check()
                history = await following()
                assert _reason(history) is HistoryReason.EPOCH
                assert isinstance(history, History)
                assert history.position == "0-0"
                assert await room.scribe.begin(writing.answer, remembered="a") is not None
                assert _reason(await following()) is HistoryReason.EPOCH

    async def test_from_before_all_of_a_lost_log_comes_the_whole_state(self) -> None:
        """Nothing would look like everything."""
        async with Room.open() as room:
            await room.answering("a")
            room.memory.lose_everything()
            async with room.follower(BEFORE_ALL) as following:
                history = await following()
                assert isinstance(history, History)
                assert history.reason is HistoryReason.EPOCH
                assert len(history.messages) == 2
                await room.scribe.rename("A title")
                # The lost log was begun again for whoever came, and goes on from there.
                assert seqs(await following()) == [1]

    async def test_from_before_all_of_a_session_in_which_nothing_was_said(self) -> None:
        async with Room.open() as room, room.follower(BEFORE_ALL) as following:
            next_frame = asyncio.ensure_future(following())
            await turns()
            await room.scribe.ask()
            assert seqs(await next_frame) == [0]

    async def test_a_stream_outlives_the_log_being_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(following_module, "_RETRY_SECONDS", 0.01)
        async with Room.open(ring_entries=4) as room:
            writing = await room.answering("a")
            async with room.live() as following:
                room.distant.away = True
                await writing.write(*"bcdefghij")
                for _ in range(3):
                    assert isinstance(await following(), Heartbeat)
                room.distant.away = False
                frame = await following()
                while isinstance(frame, Heartbeat):
                    frame = await following()
                assert seqs(frame) == list(range(3, 12))

    @pytest.mark.parametrize("after", [None, Position(1000, 2)])
    async def test_a_stream_that_begins_while_the_log_is_away_waits_for_it(
        self, monkeypatch: pytest.MonkeyPatch, after: Position | None
    ) -> None:
        """A stock EventSource never comes back after an error status."""
        monkeypatch.setattr(following_module, "_RETRY_SECONDS", 0.01)
        async with Room.open() as room:
            await room.answering("a", "b")
            room.distant.away = True
            async with room.follower(after) as following:
                for _ in range(3):
                    assert isinstance(await following(), Heartbeat)
                room.distant.away = False
                frame = await following()
                while isinstance(frame, Heartbeat):
                    frame = await following()
                if after is None:
                    assert isinstance(frame, History)
                    assert frame.position == "1000-3"
                else:
                    assert seqs(frame) == [3]
            assert not room.node.following._connections

    async def test_a_poll_while_the_log_is_away_is_told_so(self) -> None:
        async with Room.open() as room:
            await room.answering("a")
            room.distant.away = True
            follower = await room.node.join(SESSION, Position(1000, 1))
            with pytest.raises(Unavailable):
                await follower.poll(900)
            await follower.close()

    async def test_silence_is_filled_with_heartbeats(self) -> None:
        limits = FollowingLimits(900, 0.01, 8)
        async with Room.open(limits=limits) as room, room.live() as following:
            assert isinstance(await following(), Heartbeat)
            assert isinstance(await following(), Heartbeat)

    async def test_a_poll_gives_what_there_is_at_once(self) -> None:
        async with Room.open() as room:
            await room.answering("a", "b")
            follower = await room.node.join(SESSION, Position(1000, 1))
            answer = await asyncio.wait_for(follower.poll(900), 5)
            assert [entry.position.seq for entry in answer.entries] == [2, 3]
            assert (answer.position, answer.history) == (Position(1000, 3), None)
            await follower.close()

    async def test_a_poll_waits_for_what_comes(self) -> None:
        async with Room.open() as room:
            writing = await room.answering("a")
            follower = await room.node.join(SESSION, Position(1000, 2))
            polling = asyncio.create_task(follower.poll(900))
            await turns()
            assert not polling.done()
            await writing.write("b")
            answer = await asyncio.wait_for(polling, 5)
            assert [entry.position.seq for entry in answer.entries] == [3]
            await follower.close()

    async def test_a_poll_that_waited_for_nothing_stands_where_it_stood(self) -> None:
        async with Room.open() as room:
            await room.answering("a")
            follower = await room.node.join(SESSION, Position(1000, 2))
            answer = await follower.poll(0.01)
            assert not answer.entries
            assert (answer.position, answer.history) == (Position(1000, 2), None)
            await follower.close()


class TestEnd:
    @pytest.mark.parametrize("begun", [True, False], ids=["asked in", "never asked in"])
    async def test_a_deleted_session_says_goodbye(self, begun: bool) -> None:
        async with Room.open() as room:
            if begun:
                await room.answering("a")
            async with room.live() as following:
                deleting = asyncio.ensure_future(following())
                await turns()
                await room.scribe.delete()
                frame = await deleting
                if isinstance(frame, Entries):
                    frame = await following()
                assert frame == Bye(ByeReason.SESSION_DELETED, reconnect=False, after_ms=0)
                with pytest.raises(StopAsyncIteration):
                    await following()

    async def test_a_deletion_that_was_not_heard_of_is_found_by_the_check(self) -> None:
        async with Room.open() as room:
            await room.answering("a")
            async with room.live() as following:
                room.deaf = True
                await room.scribe.delete()
                await room.tails.check()
                assert await following() == Bye(
                    ByeReason.SESSION_DELETED, reconnect=False, after_ms=0
                )

    async def test_a_node_that_drains_says_goodbye_to_all(self) -> None:
        async with Room.open() as room:
            await room.answering("a")
            async with room.live() as one, room.live() as other:
                waiting = [asyncio.ensure_future(one()), asyncio.ensure_future(other())]
                polling = asyncio.ensure_future(
                    (await room.node.join(SESSION, Position(1000, 2))).poll(900)
                )
                await turns()
                room.node.following.drain()
                for frame in await asyncio.wait_for(asyncio.gather(*waiting), 5):
                    assert isinstance(frame, Bye)
                    assert (frame.reason, frame.reconnect) == (ByeReason.DRAIN, True)
                    assert 0 <= frame.after_ms < 500
                assert (await asyncio.wait_for(polling, 5)).position == Position(1000, 2)
            async with room.follower() as late:
                assert isinstance(await late(), Bye)

    async def test_a_stream_has_a_lifetime(self) -> None:
        limits = FollowingLimits(0.05, 900, 8)
        async with Room.open(limits=limits) as room, room.live() as following:
            assert await _after_heartbeats(following) == Bye(
                ByeReason.LIFETIME, reconnect=True, after_ms=0
            )

    async def test_a_stream_ends_with_its_credential(self) -> None:
        caller = CALLER._replace(expires_at=time.time() + 0.05)
        async with Room.open() as room:
            frames = (await room.node.join(SESSION, None, caller)).frames()

            async def following() -> Frame:
                return await asyncio.wait_for(anext(frames), 5)

            assert isinstance(await following(), Welcome)
            assert isinstance(await following(), History)
            assert await _after_heartbeats(following) == Bye(
                ByeReason.TOKEN_EXPIRED, reconnect=False, after_ms=0
            )

    async def test_a_renewed_credential_lets_a_stream_go_on(self) -> None:
        caller = CALLER._replace(expires_at=time.time() + 0.05)
        async with Room.open() as room:
            follower = await room.node.join(SESSION, None, caller)
            follower.renew(caller._replace(expires_at=time.time() + 900))
            frames = follower.frames()
            assert isinstance(await anext(frames), Welcome)
            assert isinstance(await anext(frames), History)
            ended = asyncio.ensure_future(_next(frames))
            await eventually(lambda: time.time() > (caller.expires_at or 0), "the old one ended")
            await turns()
            assert not ended.done()
            await room.scribe.ask()
            assert seqs(await ended) == [0]
            await follower.close()


class TestOpen:
    async def test_a_user_has_so_many_connections(self, node: MemoryNode) -> None:
        held = [await _open(node) for _ in range(2)]
        with pytest.raises(TooManyConnections):
            await _open(node)
        await held[0].close()
        await held[0].close()
        held[0] = await _open(node)
        with pytest.raises(TooManyConnections):
            await _open(node)
        for follower in held:
            await follower.close()
        assert not node.following._connections

    async def test_a_burst_does_not_pass_the_limit_together(self, node: MemoryNode) -> None:
        found = await asyncio.gather(*(_open(node) for _ in range(10)), return_exceptions=True)
        opened = [one for one in found if isinstance(one, Follower)]
        assert len(opened) == 2
        assert {type(one) for one in found} == {Follower, TooManyConnections}
        for follower in opened:
            await follower.close()

    async def test_what_is_refused_takes_no_slot(self, node: MemoryNode) -> None:
        for _ in range(5):
            with pytest.raises(NotFound):
                await _open(node, session_id="s-2")
            with pytest.raises(NotFound):
                await _open(node, caller=Caller("bob", "bob"))
        assert not node.following._connections

    async def test_a_tombstone_has_nothing_to_follow(
        self, node: MemoryNode, database: Database
    ) -> None:
        await sessions.delete_session(
            database, user_id="ada", session_id=SESSION, now=NOON, events=no_events
        )
        follower = await _open(node)
        assert follower.deleted
        await follower.close()
        with pytest.raises(NotFound):
            await _open(node, caller=Caller("bob", "bob"))

    async def test_the_stored_state_is_given(self, node: MemoryNode) -> None:
        follower = await _open(node)
        frames = follower.frames()
        assert isinstance(await anext(frames), Welcome)
        history = await anext(frames)
        assert isinstance(history, History)
        assert [message.role.value for message in history.messages] == ["user", "assistant"]
        await follower.close()


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    database = Database(new_database("sqlite"))
    yield database
    await database.close()


@pytest.fixture
async def node(database: Database) -> AsyncIterator[MemoryNode]:
    """A node that allows two connections a user, and a session of ada's in its database."""
    await (await Talker(database, "ada", SESSION).arrive()).ask()
    async with Room.open() as room:
        yield MemoryNode(
            room.memory,
            Reading(database, room.memory),
            database=database,
            limits=FollowingLimits(900, 15, 2),
        )


async def _open(
    node: MemoryNode, *, session_id: str = SESSION, caller: Caller = CALLER
) -> Follower:
    return await node.following.open(caller, session_id, None, "sse")


async def _after_heartbeats(following: Callable[[], Awaitable[Frame]]) -> Frame:
    frame = await following()
    while isinstance(frame, Heartbeat):
        frame = await following()
    return frame


async def _next(frames: AsyncIterator[Frame]) -> Frame:
    return await anext(frames)
