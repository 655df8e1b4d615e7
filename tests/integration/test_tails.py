"""The tails of a node on a log in memory: what they miss, what they find, how often they read."""

from __future__ import annotations

import asyncio
import contextlib

from app.domain.errors import Unavailable
from app.domain.position import Position
from tests.support.room import SESSION, Room, seqs, turns
from tests.support.waiting import eventually


class TestTail:
    async def test_what_is_published_needs_no_reading(self) -> None:
        async with Room.open() as room:
            writing = await room.answering("a")
            async with room.live() as following:
                room.distant.calls.clear()
                await writing.write("b", "c")
                assert seqs(await following()) == [3, 4]
                assert not room.distant.calls

    async def test_a_lost_publication_is_found_by_the_next(self) -> None:
        async with Room.open() as room:
            writing = await room.answering("a")
            async with room.live() as following:
                room.deaf = True
                await writing.write("b")
                room.deaf = False
                await writing.write("c")
                assert seqs(await following()) == [3, 4]
                assert room.node.metrics.tail_gaps._value.get() == 1

    async def test_a_lost_publication_is_found_by_the_check(self) -> None:
        async with Room.open() as room:
            writing = await room.answering("a")
            async with room.live() as following:
                room.deaf = True
                await writing.write("b")
                await room.tails.check()
                assert seqs(await following()) == [3]

    async def test_the_check_runs_by_itself(self) -> None:
        async with Room.open(check_seconds=0.01) as room:
            writing = await room.answering("a")
            async with room.live() as following:
                room.deaf = True
                await writing.write("b")
                room.distant.away = True
                room.tails.start()
                await eventually(lambda: room.distant.calls["tails"] > 2, "checks that fail")
                room.distant.away = False
                assert seqs(await following()) == [3]

    async def test_the_check_reads_nothing_where_nothing_differs(self) -> None:
        async with Room.open() as room:
            await room.answering("a")
            async with room.live():
                room.distant.calls.clear()
                await room.tails.check()
                assert room.distant.calls == {"tails": 1}

    async def test_what_came_before_the_subscription_is_found_by_its_confirmation(self) -> None:
        async with Room.open() as room:
            writing = await room.answering("a")
            async with room.live() as following:
                room.deaf = True
                await writing.write("b")
                room.node.wire.confirm(SESSION)
                assert seqs(await following()) == [3]

    async def test_a_hole_that_is_seen_during_a_read_is_read_again(self) -> None:
        """The reply that is still on its way may be older than what was seen since."""
        async with Room.open() as room:
            writing = await room.answering("a")

            async def lose_one() -> None:
                room.deaf = True
                await writing.write("b")
                room.deaf = False
                await writing.write("c")

            async with room.live() as following:
                room.distant.during_reads.append(lose_one)
                room.node.wire.confirm(SESSION)
                assert seqs(await following()) == [3, 4]

    async def test_publications_during_a_read_are_not_taken_back_by_it(self) -> None:
        """The reply tells of an older state than the subscription did meanwhile."""
        async with Room.open() as room:
            writing = await room.answering("a")
            tail = room.tails.hold(SESSION)
            await tail.ready()
            room.distant.during_reads += [lambda: writing.write("b"), lambda: writing.write("c")]
            await tail.sync()
            assert tail.state.position == (await room.memory.tails([SESSION]))[0]

    async def test_late_publications_of_a_log_that_began_are_not_taken_back(self) -> None:
        async with Room.open() as room:
            tail = room.tails.hold(SESSION)
            await tail.ready()
            room.deaf = True
            await room.scribe.ask()

            async def nothing() -> None:
                pass

            async def hear() -> None:
                room.deaf = False
                room.node.wire.deliver(SESSION, room.published[0])
                await room.scribe.rename("A title")

            room.distant.during_reads += [nothing, hear]
            await tail.sync()
            assert not room.distant.during_reads
            assert tail.state.position == Position(1000, 1)

    async def test_many_who_ask_at_once_are_answered_by_one_read(self) -> None:
        async with Room.open() as room:
            await room.answering("a", "b")
            room.distant.replies.clear()
            tail = room.tails.hold(SESSION)
            asking = [asyncio.create_task(tail.ready()) for _ in range(50)]
            await eventually(lambda: room.distant.calls["tails"], "a read that began")
            await turns()
            room.distant.replies.set()
            await asyncio.gather(*asking)
            # The one that was under way when the others asked may be older than their question.
            assert room.distant.calls["read"] <= 2

    async def test_many_who_are_ahead_of_the_tail_share_its_reads(self) -> None:
        async with Room.open() as room:
            writing = await room.answering("a")
            tail = room.tails.hold(SESSION)
            await tail.ready()
            room.deaf = True
            await writing.write(*"bcdef")
            room.distant.calls.clear()
            async with contextlib.AsyncExitStack() as stack:
                followers = [
                    await stack.enter_async_context(room.follower(Position(1000, 4)))
                    for _ in range(50)
                ]
                frames = await asyncio.gather(*(following() for following in followers))
            assert all(seqs(frame) == [5, 6, 7] for frame in frames)
            assert room.distant.calls["read"] <= 2

    async def test_who_waits_for_a_read_that_fails_is_told(self) -> None:
        async with Room.open() as room:
            await room.answering("a")
            room.distant.replies.clear()
            tail = room.tails.hold(SESSION)
            asking = [asyncio.create_task(tail.ready()) for _ in range(3)]
            await eventually(lambda: room.distant.calls["tails"], "a read that began")
            room.distant.away = True
            room.distant.replies.set()
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3

    async def test_who_waits_for_a_read_whose_caller_leaves_reads_for_itself(self) -> None:
        async with Room.open() as room:
            await room.answering("a")
            room.distant.replies.clear()
            tail = room.tails.hold(SESSION)
            one, two, three = (asyncio.create_task(tail.ready()) for _ in range(3))
            await eventually(lambda: room.distant.calls["tails"], "a read that began")
            # Whoever asks second waits for the first read, and the third for the second's.
            one.cancel()
            await turns()
            two.cancel()
            await turns()
            room.distant.replies.set()
            await asyncio.wait_for(three, 5)
            assert tail.state.loaded

    async def test_a_tail_outlives_its_last_follower_for_a_while(self) -> None:
        async with Room.open(linger_seconds=0.02) as room:
            await room.answering("a")
            async with room.live():
                pass
            room.distant.calls.clear()
            async with room.follower(Position(1000, 1)) as following:
                assert seqs(await following()) == [2]
                assert not room.distant.calls
            await eventually(lambda: not room.node.wire.channels, "no subscription is left")
            room.distant.calls.clear()
            async with room.follower(Position(1000, 1)) as following:
                assert seqs(await following()) == [2]
                assert room.distant.calls["read"] == 1

    async def test_a_long_log_that_is_begun_anew_is_followed_in_its_new_epoch(self) -> None:
        """Nothing that is left of the old epoch may stand in the way of what is read."""
        async with Room.open(ring_entries=4) as room:
            writing = await room.answering(*"abcdefghijkl")
            room.memory.restart()
            again = await room.scribe.begin(writing.answer)
            assert again is not None
            await again.write("m")
            async with room.live() as following:
                tail = room.tails.hold(SESSION)
                assert tail.state.position == Position(1001, 1)
                await again.write("n")
                assert seqs(await following()) == [2]
