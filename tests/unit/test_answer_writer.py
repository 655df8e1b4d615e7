"""What a worker writes of an answer: text and thoughts in one order, and thoughts with a bound."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.db.results import Begun
from app.domain.events import NewEntry
from app.domain.messages import REASONING_MAX_CHARACTERS, Message, Role, Status
from app.domain.position import BEFORE_ALL
from app.models.client import Reasoning
from app.streams.jobs import Job
from app.streams.memory_log import MemorySessionLog
from app.streams.session_log import ActiveAnswer, Claimed
from app.telemetry import create_metrics
from workers.generation.flusher import AnswerWriter, Flusher
from workers.generation.held import HeldAnswer
from workers.generation.kept import Kept, Remembered, kept_of

_SESSION, _ANSWER = "s-1", "a-1"


class _Stage:
    """A session log with a lease on it, and a flusher."""

    def __init__(self) -> None:
        epochs = itertools.count(1000)
        self.log = MemorySessionLog(
            max_entries=10_000, clock=time.monotonic, epoch_clock=lambda: next(epochs)
        )
        self.flusher = Flusher(self.log, interval_ms=0, metrics=create_metrics())

    async def writer(self, kept: Kept) -> AnswerWriter:
        claimed = await self.log.claim(_SESSION, _ANSWER, "worker", 60_000)
        assert isinstance(claimed, Claimed)
        await self.log.start(
            claimed.lease,
            _ANSWER,
            1,
            kept=kept.text,
            kept_reasoning=kept.reasoning,
            entries=[NewEntry("start", b"{}")],
            entries_if_unknown=[],
        )
        held = HeldAnswer(Job("1-1", _SESSION, _ANSWER, 0), claimed.lease)
        return AnswerWriter(self.flusher, held, 1, kept)

    async def written(self) -> list[tuple[str, dict[str, Any]]]:
        held = await self.log.read(_SESSION, BEFORE_ALL, 10_000)
        return [(entry.type, json.loads(entry.data)) for entry in held.entries[1:]]


@pytest.fixture
async def stage() -> AsyncIterator[_Stage]:
    made = _Stage()
    made.flusher.start()
    yield made
    await made.flusher.close()


async def test_text_and_thoughts_stand_in_the_order_in_which_they_came(stage: _Stage) -> None:
    writer = await stage.writer(Kept("So ", "Hm."))
    for piece in (Reasoning(" Well."), "it", Reasoning(" Yes."), " is"):
        await writer.write(piece)
    await writer.drain()

    assert [
        (kind, data.get("index"), data["offset"], data["chunk"])
        for kind, data in await stage.written()
    ] == [
        ("reasoning", None, 3, " Well."),
        ("chunk", 0, 3, "it"),
        ("reasoning", None, 9, " Yes."),
        ("chunk", 1, 5, " is"),
    ]
    assert writer.kept == Kept("So it is", "Hm. Well. Yes.")
    assert writer.chunks == 2
    active = (await stage.log.snapshot(_SESSION)).active
    assert active == ActiveAnswer(_ANSWER, 1, 4, "So it is", "Hm. Well. Yes.")


@pytest.mark.parametrize("piece", [1, 7, 1000, 100_000])
async def test_thoughts_beyond_the_bound_are_dropped_and_it_is_said(
    stage: _Stage, piece: int
) -> None:
    near = REASONING_MAX_CHARACTERS - 1500
    writer = await stage.writer(Kept("", "x" * near))
    for _ in range(2000 // piece + 2):
        await writer.write(Reasoning("y" * piece))
    await writer.write("The answer")
    await writer.drain()

    assert writer.kept.reasoning == "x" * near + "y" * 1499 + "…"
    assert len(writer.kept.reasoning) == REASONING_MAX_CHARACTERS
    assert writer.kept.text == "The answer"
    told = [data["chunk"] for kind, data in await stage.written() if kind == "reasoning"]
    assert "".join(told) == "y" * 1499 + "…"
    assert "" not in told


async def test_thoughts_of_just_the_bound_are_whole(stage: _Stage) -> None:
    whole = "x" * (REASONING_MAX_CHARACTERS - 1)
    writer = await stage.writer(Kept())
    await writer.write(Reasoning(whole))
    await writer.drain()
    assert writer.kept.reasoning == whole


def _begun(content: str = "", reasoning: str | None = None) -> Begun:
    message = Message(
        message_id=_ANSWER,
        session_id=_SESSION,
        role=Role.ASSISTANT,
        content=content,
        reasoning=reasoning,
        status=Status.STREAMING,
        is_complete=False,
        attempt=3,
        model="demo",
        created_at="2026-01-31T09:05:00.123Z",
    )
    return Begun(message, message, "ada", 3, recovered=True, conversation=[])


def _active(text: str, reasoning: str) -> ActiveAnswer:
    return ActiveAnswer(_ANSWER, 2, 1, text, reasoning)


@pytest.mark.parametrize(
    ("begun", "active", "remembered", "kept"),
    [
        (_begun(), None, None, Kept()),
        (_begun(), _active("So", "Hm."), None, Kept("So", "Hm.")),
        # It had only been thinking: no server goes on in the middle of a thought.
        (_begun(), _active("", "Hm."), None, Kept()),
        (_begun("", "Hm."), None, None, Kept()),
        # The log was lost: what was to be gone on with, or what this worker had in it.
        (_begun("So", "Hm."), None, None, Kept("So", "Hm.")),
        (_begun("So"), None, None, Kept("So")),
        (_begun(), None, Remembered(2, Kept("So", "Hm.")), Kept("So", "Hm.")),
        (_begun(), None, Remembered(2, Kept("", "Hm.")), Kept()),
        (_begun("S", "H"), None, Remembered(2, Kept("So", "Hm.")), Kept("So", "Hm.")),
        # Another made an attempt since.
        (_begun(), None, Remembered(1, Kept("So", "Hm.")), Kept()),
        (
            _begun(),
            _active("Well", "Ah."),
            Remembered(1, Kept("So far", "Hm.")),
            Kept("Well", "Ah."),
        ),
    ],
)
def test_an_attempt_keeps_thoughts_with_the_text_that_they_led_to(
    begun: Begun, active: ActiveAnswer | None, remembered: Remembered | None, kept: Kept
) -> None:
    assert kept_of(begun, active, remembered) == kept
