"""A model is silent for too long, says too much, or is given up: what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from app.domain.errors import AnswerFailed
from app.models.bounds import bounded, timely
from app.models.client import Finished, Pieces, Reasoning

FINISHED = Finished(None, "stop")


class Model:
    """Says its pieces, waits for ever at a None, and remembers how it was left."""

    def __init__(self, *script: str | Reasoning | Finished | Exception | None) -> None:
        self.waiting = asyncio.Event()
        self.closed = False
        self._script: Sequence[str | Reasoning | Finished | Exception | None] = script

    async def pieces(self) -> Pieces:
        try:
            for step in self._script:
                match step:
                    case None:
                        self.waiting.set()
                        await asyncio.Event().wait()
                    case Exception():
                        raise step
                    case _:
                        yield step
        finally:
            await asyncio.sleep(0)  # closing a connection takes a turn of the loop
            self.closed = True


async def outcome(
    model: Model,
    *,
    first_seconds: float = 60,
    silence_seconds: float = 60,
    max_characters: int = 100,
) -> tuple[list[str | Reasoning | Finished], AnswerFailed | None]:
    passed: list[str | Reasoning | Finished] = []
    timed = timely(model.pieces(), first_seconds=first_seconds, silence_seconds=silence_seconds)
    bounds = bounded(timed, max_characters=max_characters)
    try:
        async with aclosing(bounds) as pieces:
            async for piece in pieces:
                passed.append(piece)  # noqa: PERF401 - what came before a failure counts
    except AnswerFailed as failure:
        assert model.closed
        return passed, failure
    assert model.closed
    return passed, None


async def test_a_whole_answer_passes_unchanged() -> None:
    assert await outcome(Model("a", "b", FINISHED)) == (["a", "b", FINISHED], None)


async def test_silence_before_the_first_piece_has_a_bound_of_its_own() -> None:
    passed, failure = await outcome(Model(None), first_seconds=0.02)

    assert passed == []
    assert failure is not None
    assert failure.answer_code == "model_timeout"
    assert "0.02 seconds" in failure.detail


@pytest.mark.parametrize("before", ["a", Reasoning("hm")])
async def test_silence_after_a_piece_ends_the_answer(before: str | Reasoning) -> None:
    passed, failure = await outcome(Model(before, None), silence_seconds=0.02)

    assert passed == [before]
    assert failure is not None
    assert failure.answer_code == "model_timeout"


async def test_thoughts_pass_and_are_not_counted() -> None:
    thought = Reasoning("a long thought")

    assert await outcome(Model(thought, "abc", FINISHED), max_characters=3) == (
        [thought, "abc", FINISHED],
        None,
    )


async def test_the_time_that_the_reader_takes_is_not_the_models_silence() -> None:
    async with aclosing(
        timely(Model("a", "b", FINISHED).pieces(), first_seconds=0.02, silence_seconds=0.02)
    ) as pieces:
        assert await anext(pieces) == "a"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.Event().wait()
        assert await anext(pieces) == "b"


async def test_an_answer_of_exactly_the_greatest_length_is_whole() -> None:
    passed, failure = await outcome(Model("abc", "def", FINISHED), max_characters=6)

    assert (passed, failure) == (["abc", "def", FINISHED], None)


@pytest.mark.parametrize(
    ("max_characters", "expected"), [(5, ["abc", "de"]), (3, ["abc"]), (0, [])]
)
async def test_a_longer_one_is_cut_at_the_greatest_length(
    max_characters: int, expected: list[str]
) -> None:
    passed, failure = await outcome(Model("abc", "def", FINISHED), max_characters=max_characters)

    assert passed == expected
    assert failure is not None
    assert failure.answer_code == "answer_too_long"


async def test_pieces_without_an_end_are_cut_off() -> None:
    passed, failure = await outcome(Model("a"))

    assert passed == ["a"]
    assert failure is not None
    assert failure.answer_code == "model_cut_off"


async def test_the_models_own_failure_passes() -> None:
    failure = AnswerFailed("model_error", "It failed")

    assert await outcome(Model("a", failure)) == (["a"], failure)


async def test_a_timeout_of_the_models_own_is_not_taken_for_silence() -> None:
    with pytest.raises(TimeoutError, match="own"):
        await outcome(Model(TimeoutError("own")))


async def test_cancelling_closes_the_model() -> None:
    model = Model("a", None)
    reading = asyncio.create_task(outcome(model))
    async with asyncio.timeout(5):
        await model.waiting.wait()

    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    assert model.closed


async def test_giving_up_between_two_pieces_closes_the_model() -> None:
    model = Model("a", "b", FINISHED)
    timed = timely(model.pieces(), first_seconds=60, silence_seconds=60)
    pieces = bounded(timed, max_characters=9)
    assert await anext(pieces) == "a"

    await pieces.aclose()

    assert model.closed
