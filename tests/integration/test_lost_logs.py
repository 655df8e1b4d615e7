"""The log was lost, or has expired: whoever comes back is shown what was said meanwhile.

Without a log every session stands at 0-0, also the one that a client left there before anything
was said. So 0-0 alone must not mean that nothing was.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from app.chat import following as following_module
from app.chat.following import Follower
from app.chat.reading import Reading
from app.db.engine import Database
from app.domain.events import SessionChanged, new_entry
from app.domain.frames import Entries, Frame, Heartbeat, History, HistoryReason, Welcome
from app.domain.position import BEFORE_ALL, Position
from app.streams.memory_log import MemorySessionLog
from tests.support.conversations import Talker
from tests.support.databases import NewDatabase
from tests.support.memory_node import CALLER, DistantLog, MemoryNode

_SESSION = "s-1"
_FRAME_SECONDS = 5


class _Place(NamedTuple):
    """A user who talks, and a node with a log that may be lost."""

    talker: Talker
    log: MemorySessionLog
    distant: DistantLog
    node: MemoryNode

    async def follow(self, after: Position | None) -> tuple[Follower, AsyncIterator[Frame]]:
        follower = await self.node.following.open(CALLER, _SESSION, after, "sse")
        frames = follower.frames()
        assert isinstance(await anext(frames), Welcome)
        return follower, frames

    async def first_frame(self, after: Position | None) -> Frame:
        follower, frames = await self.follow(after)
        try:
            return await asyncio.wait_for(anext(frames), _FRAME_SECONDS)
        finally:
            await follower.close()

    async def tail(self) -> Position:
        (position,) = await self.log.tails([_SESSION])
        return position


@pytest.fixture
async def place(new_database: NewDatabase) -> AsyncIterator[_Place]:
    database = Database(new_database("sqlite"))
    epochs = itertools.count(1000)
    nodes: list[MemoryNode] = []
    log = MemorySessionLog(
        max_entries=1000,
        clock=lambda: 0.0,
        epoch_clock=lambda: next(epochs),
        on_publish=lambda *told: nodes[0].wire.deliver(*told),  # noqa: PLW0108
    )
    distant = DistantLog(log)
    nodes.append(MemoryNode(distant.log, Reading(database, log), database=database))
    talker = await Talker(database, "ada", _SESSION).arrive()
    yield _Place(talker, log, distant, nodes[0])
    await nodes[0].tails.close()
    await database.close()


async def test_what_was_said_before_the_log_was_lost_is_shown_to_who_left_before_it(
    place: _Place,
) -> None:
    """A tab on a new session is closed with the laptop; the answer is read on the telephone."""
    await place.talker.create(_SESSION)
    before = await place.first_frame(None)
    assert isinstance(before, History)
    assert (before.messages, before.position) == ([], str(BEFORE_ALL))
    await place.talker.exchange("Why?", "Because.")
    history = await place.first_frame(Position.parse(before.position))
    assert isinstance(history, History)
    assert history.reason is HistoryReason.EPOCH
    assert [message.content for message in history.messages] == ["Why?", "Because."]


async def test_who_was_shown_it_is_not_shown_it_again_and_again(place: _Place) -> None:
    """A long poll that is answered at once each time would never rest."""
    await place.talker.exchange("Why?", "Because.")
    history = await place.first_frame(BEFORE_ALL)
    assert isinstance(history, History)
    position = Position.parse(history.position)
    assert position != BEFORE_ALL
    follower = await place.node.following.open(CALLER, _SESSION, position, "poll")
    assert await follower.poll(0.0) == ((), position, None)
    await follower.close()


async def test_what_is_said_in_a_further_life_of_the_log_is_shown_as_well(place: _Place) -> None:
    await place.talker.exchange("One?", "One.")
    history = await place.first_frame(None)
    assert isinstance(history, History)
    await place.talker.exchange("Two?", "Two.")
    place.log.lose_log(_SESSION)
    place.node.wire.confirm(_SESSION)
    history = await place.first_frame(Position.parse(history.position))
    assert isinstance(history, History)
    assert history.reason is HistoryReason.EPOCH
    assert len(history.messages) == 4


async def test_those_who_follow_at_the_moment_go_on(place: _Place) -> None:
    await place.talker.create(_SESSION)
    follower, frames = await place.follow(BEFORE_ALL)
    following = asyncio.ensure_future(anext(frames))
    await place.talker.exchange("Why?", "Because.")
    await place.first_frame(None)
    told = await asyncio.wait_for(following, _FRAME_SECONDS)
    assert isinstance(told, History)
    assert len(told.messages) == 2
    await follower.close()


async def test_a_log_that_never_began_is_left_alone(place: _Place) -> None:
    """Its first entry is still to come, and 0-0 is where it is replayed from."""
    await place.talker.create(_SESSION)
    for after in (None, BEFORE_ALL):
        follower, frames = await place.follow(after)
        waiting = asyncio.ensure_future(anext(frames))
        if after is None:
            assert isinstance(await waiting, History)
        else:
            assert await follower.poll(0.0) == ((), BEFORE_ALL, None)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await follower.close()
    assert await place.tail() == BEFORE_ALL


async def test_a_log_that_is_there_is_left_alone(place: _Place) -> None:
    """A question is told once more only where there is nothing else to stand at."""
    await place.talker.exchange("Why?", "Because.")
    await place.log.record(_SESSION, [new_entry(SessionChanged(_SESSION, "Title"))], pristine=False)
    for after in (None, BEFORE_ALL, Position(999, 5)):
        history = await place.first_frame(after)
        assert isinstance(history, History)
        assert history.position == "1000-0"
    assert await place.tail() == Position(1000, 0)


async def test_who_cannot_be_told_yet_is_told_when_redis_is_back(
    place: _Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes away just when the log is to be begun: what is stored was read, and not shown."""
    monkeypatch.setattr(following_module, "_RETRY_SECONDS", 0)
    await place.talker.exchange("Why?", "Because.")
    follower, frames = await place.follow(BEFORE_ALL)
    place.distant.away = True
    assert isinstance(await asyncio.wait_for(anext(frames), _FRAME_SECONDS), Heartbeat)
    place.distant.away = False
    frame = await asyncio.wait_for(anext(frames), _FRAME_SECONDS)
    while isinstance(frame, Heartbeat):
        frame = await asyncio.wait_for(anext(frames), _FRAME_SECONDS)
    assert isinstance(frame, History)
    assert len(frame.messages) == 2
    await follower.close()


async def test_a_node_that_was_not_told_of_the_loss_does_not_tell_the_old_log_again(
    place: _Place,
) -> None:
    """Redis was emptied; nobody has published since, and the periodic look is yet to come."""
    accepted = await place.talker.ask("Why?")
    answer_id = accepted.assistant_message.message_id
    question = new_entry(accepted.user_message)
    await place.log.submit(_SESSION, answer_id, 0, [question], pristine=True)
    before = await place.first_frame(BEFORE_ALL)
    assert isinstance(before, Entries)
    place.log.lose_log(_SESSION)
    follower = await place.node.following.open(CALLER, _SESSION, None, "poll")
    state = (await follower.poll(0.0)).history
    assert state is not None
    assert state.position == str(BEFORE_ALL)
    assert list((await follower.poll(0.0)).entries) == []
    await follower.close()


async def test_nor_does_it_to_a_client_whom_another_node_gave_the_new_state(place: _Place) -> None:
    """It comes with 0-0, which is where the other node found the log to be."""
    accepted = await place.talker.ask("Why?")
    answer_id = accepted.assistant_message.message_id
    question = new_entry(accepted.user_message)
    await place.log.submit(_SESSION, answer_id, 0, [question], pristine=True)
    before = await place.first_frame(BEFORE_ALL)
    assert isinstance(before, Entries)
    place.log.lose_log(_SESSION)
    follower = await place.node.following.open(CALLER, _SESSION, BEFORE_ALL, "poll")
    assert list((await follower.poll(0.0)).entries) == []
    await follower.close()
