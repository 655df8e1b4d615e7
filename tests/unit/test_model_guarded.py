"""What stands around a model: places, circuit, tries; and what those who give up leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import pytest

from app.models.circuit import Circuit, CircuitState
from app.models.client import Finished, GenerationRequest, ModelFailed, Pieces
from app.models.guarded import GuardedModel, Patience
from app.models.room import Room
from tests.support.model_answers import answer, asking
from tests.support.waiting import eventually

FINISHED = Finished(None, "stop")
FAILED = ModelFailed("model_error", "It failed", again=True, ails=True)


class Scripted:
    """Plays one script a try; waits for ever at a None."""

    model_id: Final = "m"
    name: Final = "M"
    kind: Final = "openai_compatible"
    continues: Final = False

    def __init__(self, *scripts: Sequence[str | Finished | Exception | None]) -> None:
        self.tries = 0
        self._scripts = iter(scripts)

    async def continues_from(self, request: GenerationRequest) -> bool:
        return not request.kept

    async def generate(self, request: GenerationRequest) -> Pieces:
        self.tries += 1
        for step in next(self._scripts):
            match step:
                case None:
                    await asyncio.Event().wait()
                case Exception():
                    raise step
                case _:
                    yield step

    async def close(self) -> None:
        """Nothing is held."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def guarded(model: Scripted, *, retries: int = 0, clock: Clock | None = None) -> GuardedModel:
    return GuardedModel(
        model,
        circuit=Circuit(failures=1, seconds=10, clock=clock or Clock()),
        room=Room(places=1, wait_seconds=5),
        patience=Patience(60, 60, retries, 60, pause_seconds=0.001),
    )


async def test_a_trial_that_is_given_up_before_its_first_piece_lets_the_next_one_try() -> None:
    """Else the model would be left alone for ever."""
    clock = Clock()
    model = guarded(Scripted([FAILED], [None], ["Yes.", FINISHED]), clock=clock)
    await answer(model, asking("?"))
    clock.now += 10
    trial = asyncio.create_task(answer(model, asking("?")))
    await eventually(lambda: model.room.taken, "the trial has begun")
    await asyncio.sleep(0)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial

    assert (await answer(model, asking("?"))).text == "Yes."
    assert model.circuit.state is CircuitState.CLOSED


async def test_the_first_piece_of_a_trial_closes_the_circuit() -> None:
    """Not the end: that may be minutes away, and all other questions would fail until then."""
    clock = Clock()
    model = guarded(Scripted([FAILED], ["Yes.", None]), clock=clock)
    await answer(model, asking("?"))
    clock.now += 10
    async with aclosing(model.generate(asking("?"))) as pieces:
        assert await anext(pieces) == "Yes."
        assert model.circuit.state is CircuitState.CLOSED


async def test_a_failure_in_the_middle_of_an_answer_is_no_reason_to_leave_a_server_alone() -> None:
    model = guarded(Scripted(["So", FAILED]))

    assert (await answer(model, asking("?"))).code == "model_error"
    assert model.circuit.state is CircuitState.CLOSED


async def test_an_answer_that_is_given_up_gives_its_place_back() -> None:
    model = guarded(Scripted(["So", None], ["Yes.", FINISHED]))
    async with aclosing(model.generate(asking("?"))) as pieces:
        await anext(pieces)
        assert model.room.taken == 1
    assert model.room.taken == 0

    assert (await answer(model, asking("?"))).text == "Yes."


async def test_a_circuit_that_opens_between_two_tries_is_what_the_second_one_meets() -> None:
    scripted = Scripted([FAILED], ["Yes.", FINISHED])
    model = guarded(scripted, retries=1)

    assert (await answer(model, asking("?"))).code == "model_unavailable"
    assert scripted.tries == 1


def test_pauses_double_with_chance_in_them() -> None:
    patience = Patience(60, 60, retries=3, retry_after_seconds=5, pause_seconds=1)
    for tries, (shortest, longest) in enumerate([(0.5, 1.5), (1, 3), (2, 6)]):
        pauses = {patience.pause(FAILED, tries) for _ in range(20)}
        assert len(pauses) > 1, "workers that fail together come back together"
        assert all(pause is not None and shortest <= pause <= longest for pause in pauses)
    assert patience.pause(FAILED, 3) is None
    assert patience.pause(ModelFailed("model_unauthorized", "No"), 0) is None
