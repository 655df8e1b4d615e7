"""Places for answers: who gets the next one, and what those who give up leave behind."""

from __future__ import annotations

import asyncio

import pytest

from app.models.client import ModelFailed
from app.models.room import Room


class Answers:
    """Answers in a room, each of which lasts until it is told to end."""

    def __init__(self, room: Room) -> None:
        self.begun: list[str] = []
        self._room = room
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str) -> None:
        """Ask as the user whose name the first letter is."""
        for name in names:
            self._tasks[name] = asyncio.create_task(self._answer(name))
            await asyncio.sleep(0)

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await turns()

    def give_up(self, name: str) -> asyncio.Task[None]:
        self._tasks[name].cancel()
        return self._tasks[name]

    async def _answer(self, name: str) -> None:
        async with self._room.place(name[0]):
            self.begun.append(name)
            await self._ends.setdefault(name, asyncio.Event()).wait()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_users_who_wait_take_turns() -> None:
    """One user's many questions do not starve another's one."""
    room = Room(places=1, wait_seconds=60)
    answers = Answers(room)
    await answers.ask("a1", "a2", "a3", "a4", "b1", "c1", "c2")
    assert (room.taken, room.waiting) == (1, 6)
    for name in ("a1", "a2", "b1", "c1", "a3", "c2", "a4"):
        assert answers.begun[-1] == name
        await answers.end(name)
    assert (room.taken, room.waiting) == (0, 0)


async def test_no_more_than_the_places_are_taken() -> None:
    answers = Answers(room := Room(places=2, wait_seconds=60))
    await answers.ask("a1", "b1", "c1")
    await turns()
    assert answers.begun == ["a1", "b1"]
    for name in ("b1", "a1", "c1"):
        await answers.end(name)
    assert answers.begun == ["a1", "b1", "c1"]
    assert room.taken == 0


async def test_the_wait_is_bounded() -> None:
    room = Room(places=1, wait_seconds=0.01)
    async with room.place("a"):
        with pytest.raises(ModelFailed) as busy:
            async with room.place("b"):
                pytest.fail("there was no place")
        assert busy.value.answer_code == "model_busy"
        assert room.waiting == 0
    async with room.place("b"):
        assert room.taken == 1


async def test_one_that_gives_up_leaves_its_line() -> None:
    room = Room(places=1, wait_seconds=60)
    answers = Answers(room)
    await answers.ask("a1", "b1", "c1")
    given_up = answers.give_up("b1")
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await answers.end("a1")
    assert answers.begun == ["a1", "c1"]
    await answers.end("c1")
    assert (room.taken, room.waiting) == (0, 0)


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_place_given_in_the_moment_of_giving_up_is_the_next_ones(
    *, cancelled_first: bool
) -> None:
    """Neither lost, nor given twice: both happen before the one that waits can run."""
    room = Room(places=1, wait_seconds=60)
    answers = Answers(room)
    holder = room.place("a")
    await holder.__aenter__()
    await answers.ask("b1", "c1")
    if cancelled_first:
        given_up = answers.give_up("b1")
        await holder.__aexit__(None, None, None)
    else:
        await holder.__aexit__(None, None, None)
        given_up = answers.give_up("b1")
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await turns()
    assert answers.begun == ["c1"]
    await answers.end("c1")
    assert (room.taken, room.waiting) == (0, 0)
