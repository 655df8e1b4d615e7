"""A node that is frozen while it reads a state does not tell of attempts that lie behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import msgspec
import pytest

from app.chat.reading import MessagePage, Reading
from app.db.engine import Database
from app.db.results import Begun
from app.domain.events import EventType, Start, new_entry
from app.domain.position import Position
from app.streams.memory_log import MemorySessionLog
from app.streams.session_log import AppendOutcome, Claimed, Snapshot
from tests.support.conversations import Talker
from tests.support.databases import NewDatabase

_SESSION = "s-1"
_LEASE_MS = 1000


class _SlowlyRead(MemorySessionLog):
    """Between the first look at the log and the database, others go on."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def snapshot(self, session_id: str) -> Snapshot:
        seen = await super().snapshot(session_id)
        if self.meanwhile is not None:
            others, self.meanwhile = self.meanwhile, None
            await others()
        return seen


class _Place(NamedTuple):
    talker: Talker
    log: _SlowlyRead

    async def submit(self) -> str:
        """Ask a question, and tell the log; give the answer's id."""
        accepted = await self.talker.ask("Why?")
        answer_id = accepted.assistant_message.message_id
        question = new_entry(accepted.user_message)
        await self.log.submit(_SESSION, answer_id, 0, [question], pristine=True)
        return answer_id

    async def begin(self, answer_id: str, attempts: int) -> None:
        """Begin so many attempts, each after the one before it was lost."""
        for _ in range(attempts):
            claimed = await self.log.claim(_SESSION, answer_id, "worker", _LEASE_MS)
            assert isinstance(claimed, Claimed)
            begun = await self.talker.begin(answer_id)
            assert isinstance(begun, Begun)
            start = Start(answer_id, begun.attempt, "demo", "")
            outcome = await self.log.start(
                claimed.lease,
                answer_id,
                begun.attempt,
                kept="",
                entries=[new_entry(start)],
                entries_if_unknown=[],
            )
            assert outcome is AppendOutcome.OK
            await self.log.release(claimed.lease)

    async def starts_after(self, page: MessagePage) -> list[int]:
        """Give the attempts that a client is told of after the state that it was given."""
        told = await self.log.read(_SESSION, Position.parse(page.position), 100)
        return [
            msgspec.json.decode(entry.data, type=Start).attempt
            for entry in told.entries
            if entry.type == EventType.START
        ]


@pytest.fixture
async def place(new_database: NewDatabase) -> AsyncIterator[_Place]:
    database = Database(new_database("sqlite"))
    log = _SlowlyRead(max_entries=100, clock=lambda: 0.0, epoch_clock=lambda: 7)
    yield _Place(await Talker(database).arrive(), log)
    await database.close()


async def test_frozen_before_the_question(place: _Place) -> None:
    await place.talker.create(_SESSION)

    async def others() -> None:
        await place.begin(await place.submit(), attempts=2)

    place.log.meanwhile = others
    page = await Reading(place.talker.database, place.log).whole(_SESSION, "ada")
    assert page.items[-1].attempt == 2
    assert await place.starts_after(page) == []


async def test_frozen_before_the_first_attempt(place: _Place) -> None:
    """Whoever is given this state learns of both attempts, in their order."""
    answer_id = await place.submit()

    async def others() -> None:
        await place.begin(answer_id, attempts=2)

    place.log.meanwhile = others
    page = await Reading(place.talker.database, place.log).whole(_SESSION, "ada")
    assert page.items[-1].attempt == 0
    assert await place.starts_after(page) == [1, 2]
