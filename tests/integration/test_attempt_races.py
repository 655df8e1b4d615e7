"""Orders of events around the end of an attempt, each forced."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from app.chat.settling import Settling
from app.composition import new_id, utc_now
from app.db.engine import Database
from app.db.history import message_by_id
from app.domain.errors import Unavailable
from app.domain.messages import Status
from app.events.envelope import EventBuilder
from app.models.client import Finished, GenerationRequest, Pieces
from app.models.registry import ModelRegistry
from app.streams.jobs import Job
from app.streams.memory_log import MemorySessionLog
from app.streams.session_log import AppendBatch, AppendOutcome
from app.telemetry import create_metrics
from tests.support.conversations import Talker
from workers.generation.answering import Answering
from workers.generation.attempt import AnswerLimits, AnswerParts, Ended
from workers.generation.flusher import Flusher
from workers.generation.held import HeldAnswer, Interruption

_TEXT = "one two three"


class _Words:
    """A model that writes three words at once and cannot go on from the middle."""

    model_id = "demo"
    name = "Words"
    kind = "demo"
    continues = False

    async def continues_from(self, request: GenerationRequest) -> bool:
        return not request.kept

    async def generate(self, request: GenerationRequest) -> Pieces:
        for piece in ("one", " two", " three"):
            yield piece
        yield Finished(None, "stop")

    async def close(self) -> None:
        """Nothing is held."""


class _StagedLog(MemorySessionLog):
    """Lets a test act in the moment between a batch's sending and its outcome."""

    before_append: Callable[[Sequence[AppendBatch]], Awaitable[None]] | None = None

    async def append(self, batches: Sequence[AppendBatch]) -> list[AppendOutcome]:
        if self.before_append is not None:
            act, self.before_append = self.before_append, None
            await act(batches)
        return await super().append(batches)


class _Stage:
    """One worker's parts around a staged log, and one question that waits."""

    def __init__(self, database: Database, log: _StagedLog, talker: Talker) -> None:
        self.database = database
        self.log = log
        self.talker = talker
        self.held: list[HeldAnswer] = []
        self.flusher = Flusher(log, interval_ms=0, metrics=create_metrics())

    def answering(self) -> Answering:
        events = EventBuilder("worker", new_id)
        settling = Settling(
            database=self.database,
            log=self.log,
            events=events,
            node_id="worker",
            lease_ms=60_000,
            clock=utc_now,
        )
        return Answering(
            AnswerParts(
                node_id="worker",
                database=self.database,
                log=self.log,
                settling=settling,
                models=ModelRegistry([_Words()], default="demo"),
                events=events,
                flusher=self.flusher,
                limits=AnswerLimits(
                    lease_ms=60_000,
                    max_attempts=3,
                    max_turns=10,
                    max_characters=1000,
                    storing_seconds=10,
                ),
                clock=utc_now,
                metrics=create_metrics(),
            )
        )

    async def answer(self, message_id: str) -> Ended:
        job = Job("1-1", self.talker.session_id, message_id, 0)
        async with asyncio.timeout(20):
            return await self.answering().answer(job, self.held.append)


@pytest.fixture
async def stage(database: Database) -> AsyncIterator[_Stage]:
    epochs = itertools.count(1000)
    log = _StagedLog(max_entries=1000, clock=time.monotonic, epoch_clock=lambda: next(epochs))
    made = _Stage(database, log, await Talker(database).arrive())
    made.flusher.start()
    yield made
    await made.flusher.close()


async def test_a_handover_whose_last_words_the_log_refused_is_no_end(stage: _Stage) -> None:
    """The worker is told to stop, then its batch meets a lost lease: the text is not whole.

    The handover is the first reason to end and stays it; taken alone it would let the model's end
    stand, with the refused words missing.
    """
    answer_id = (await stage.talker.ask()).assistant_message.message_id

    async def lose_after_handover(_batches: Sequence[AppendBatch]) -> None:
        stage.held[0].interrupt(Interruption.HANDOVER)
        stage.log.lose_everything()

    stage.log.before_append = lose_after_handover
    assert await stage.answer(answer_id) is Ended.HANDED_OVER
    stored = await message_by_id(stage.database, message_id=answer_id)
    assert stored is not None
    assert (stored.status, stored.content) == (Status.QUEUED, "")

    assert await stage.answer(answer_id) is Ended.DONE
    stored = await message_by_id(stage.database, message_id=answer_id)
    assert stored is not None
    assert (stored.status, stored.content) == (Status.COMPLETE, _TEXT)


async def test_a_lost_log_in_the_middle_of_an_attempt_is_begun_again(stage: _Stage) -> None:
    """Nobody else has the session: the same worker claims it again and gives the whole answer."""
    answer_id = (await stage.talker.ask()).assistant_message.message_id

    async def lose(_batches: Sequence[AppendBatch]) -> None:
        stage.log.lose_everything()

    stage.log.before_append = lose
    assert await stage.answer(answer_id) is Ended.DONE
    stored = await message_by_id(stage.database, message_id=answer_id)
    assert stored is not None
    assert (stored.status, stored.content, stored.attempt) == (Status.COMPLETE, _TEXT, 2)


async def test_a_stop_that_meets_a_refused_batch_keeps_what_the_log_has(stage: _Stage) -> None:
    """What was refused was never shown, and is not stored."""
    answer_id = (await stage.talker.ask()).assistant_message.message_id

    async def stop(_batches: Sequence[AppendBatch]) -> None:
        await stage.log.cancel(stage.talker.session_id, answer_id, 1)

    stage.log.before_append = stop
    assert await stage.answer(answer_id) is Ended.DONE
    stored = await message_by_id(stage.database, message_id=answer_id)
    assert stored is not None
    assert (stored.status, stored.content) == (Status.CANCELLED, "")


async def test_what_was_shown_before_a_stop_is_kept_although_its_reply_was_lost(
    stage: _Stage,
) -> None:
    """Words reach the log and its readers, their worker hears of the stop and not of that.

    Redis is out of its reach from then on, for longer than a stop is held up.
    """
    answer_id = (await stage.talker.ask()).assistant_message.message_id
    shown = []

    async def away(_batches: Sequence[AppendBatch]) -> None:
        stage.log.before_append = away
        raise Unavailable("Redis cannot be reached")

    async def lose_the_reply(batches: Sequence[AppendBatch]) -> None:
        assert await MemorySessionLog.append(stage.log, batches) == [AppendOutcome.OK]
        active = (await stage.log.snapshot(stage.talker.session_id)).active
        assert active is not None
        shown.append(active.text)
        stage.held[0].interrupt(Interruption.CANCELLED)
        await away(batches)

    stage.log.before_append = lose_the_reply
    assert await stage.answer(answer_id) is Ended.DONE
    stored = await message_by_id(stage.database, message_id=answer_id)
    assert stored is not None
    assert (stored.status, [stored.content]) == (Status.CANCELLED, shown)
