"""The demo model: what it says, where it falters, and that it can go on from anywhere."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import AnswerFailed
from app.domain.messages import Role, Usage, storable
from app.models.client import Finished, GenerationRequest, Reasoning, Turn
from app.models.demo.canned import CannedAnswers
from app.models.demo.model import DemoModel
from app.models.demo.script import Stall, pieces_of, script_for

ANSWERS = CannedAnswers()


def asking(question: str, kept: str = "") -> GenerationRequest:
    return GenerationRequest("m-1", "s-1", [Turn(Role.USER, question)], kept)


async def said(question: str, kept: str = "", *, delay_ms: int = 0) -> tuple[list[str], Finished]:
    pieces: list[str] = []
    async with aclosing(DemoModel(delay_ms=delay_ms).generate(asking(question, kept))) as answer:
        async for piece in answer:
            if isinstance(piece, Finished):
                return pieces, piece
            if isinstance(piece, str):
                pieces.append(piece)
            else:
                assert not pieces, "it thinks before it speaks"
    pytest.fail("there was no Finished")


async def text_of(question: str, kept: str = "") -> str:
    pieces, _ = await said(question, kept)
    return "".join(pieces)


questions = st.one_of(
    st.text(min_size=1),
    st.text(alphabet="ab \n\t\u2003é🙂", min_size=1).map(lambda text: f"/echo {text}"),
    st.integers(0, 40).map(lambda count: f"/count {count}"),
    st.sampled_from(
        [
            "/markdown",
            "/help",
            "/count",
            "/stall 3 0",
            "/think 4 9",
            "hello",
            "some python, please",
            "a table",
        ]
    ),
)


@given(questions, st.integers(min_value=0))
def test_it_goes_on_from_any_offset_with_exactly_the_rest(question: str, offset: int) -> None:
    whole = asyncio.run(text_of(question))
    kept = whole[: offset % (len(whole) + 1)]

    rest, finished = asyncio.run(said(question, kept))

    assert kept + "".join(rest) == whole
    assert all(rest), "an empty piece"
    assert finished == asyncio.run(said(question))[1]


@given(st.text())
def test_pieces_join_to_the_text(text: str) -> None:
    pieces = pieces_of(text)

    assert "".join(pieces) == text
    assert all(pieces)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_echo_gives_the_text_back_byte_for_byte(text: str) -> None:
    spoken = f"x{text}"

    assert asyncio.run(text_of(f"/echo {spoken}")) == spoken


async def test_echo_keeps_spaces_and_line_breaks_and_goes_word_by_word() -> None:
    pieces, _ = await said("/echo  two  words\n\n\tand a third ")

    assert pieces == [" two", "  words", "\n\n\tand", " a", " third", " "]


async def test_count_says_each_number_as_one_piece() -> None:
    pieces, finished = await said("/count 4")

    assert pieces == ["1", " 2", " 3", " 4"]
    assert finished.finish_reason == "stop"
    assert finished.usage is not None
    assert finished.usage.completion_tokens == 4


async def test_count_to_nothing_is_a_complete_answer_without_text() -> None:
    pieces, finished = await said("/count 0")

    assert pieces == []
    assert finished.finish_reason == "stop"


async def test_the_largest_count_is_whole_and_lets_others_run_in_between() -> None:
    model = DemoModel(delay_ms=60_000)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    words = 0
    async with aclosing(model.generate(asking("/count 100000 0"))) as answer:
        async for _ in answer:
            words += 1
            if words == 200:
                break
    running.cancel()

    assert turns >= 200
    assert script_for("/count 100000 0", ANSWERS).text.endswith(" 99999 100000")


async def test_count_keeps_the_pace_that_it_is_told() -> None:
    begun = time.monotonic()
    await said("/count 5 10", delay_ms=60_000)

    assert 0.045 <= time.monotonic() - begun < 10


async def test_the_pace_is_the_models_own_otherwise() -> None:
    begun = time.monotonic()
    await said("/count 10", delay_ms=10)

    assert time.monotonic() - begun >= 10 * 0.010 * 0.6


@pytest.mark.parametrize(("kept", "thoughts"), [("", ["These", " words"]), ("1", [])])
async def test_think_thinks_first_and_not_again_where_it_goes_on(
    kept: str, thoughts: list[str]
) -> None:
    async with aclosing(DemoModel(delay_ms=0).generate(asking("/think 2 3", kept))) as answer:
        pieces = [piece async for piece in answer]

    said = [piece for piece in ("1", " 2", " 3") if piece != kept]
    assert pieces[:-1] == [*map(Reasoning, thoughts), *said]
    assert pieces[-1] == Finished(Usage(prompt_tokens=3, completion_tokens=5), "stop")


async def test_think_keeps_the_pace_that_it_is_told() -> None:
    begun = time.monotonic()
    await said("/think 3 2 10", delay_ms=60_000)

    assert 0.045 <= time.monotonic() - begun < 10


async def test_fail_fails_after_the_pieces_that_were_asked_for() -> None:
    async with aclosing(DemoModel(delay_ms=0).generate(asking("/fail 3"))) as answer:
        assert [await anext(answer) for _ in range(3)] == ["These", " words", " are"]
        with pytest.raises(AnswerFailed) as failed:
            await anext(answer)

    assert failed.value.answer_code == "model_error"


async def test_fail_fails_again_after_what_was_kept() -> None:
    kept = script_for("/fail 3", ANSWERS).text

    with pytest.raises(AnswerFailed):
        await said("/fail 3", kept)


async def test_stall_is_silent_where_it_was_asked_to_be() -> None:
    answer = DemoModel(delay_ms=0).generate(asking("/stall 2 3600"))
    async with aclosing(answer):
        first = [await anext(answer), await anext(answer)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(answer)

    assert first == ["These", " words"]


@pytest.mark.parametrize("fraction", ["0.25", "1"])
def test_stall_has_its_silence_between_two_pieces(fraction: str) -> None:
    steps = script_for(f"/stall 2 {fraction}", ANSWERS).steps

    assert steps[2] == Stall(float(fraction))
    assert len([step for step in steps if isinstance(step, str)]) > 2


async def test_a_silence_that_lies_before_what_was_kept_is_not_repeated() -> None:
    whole = script_for("/stall 2 3600", ANSWERS).text
    kept = whole[: whole.index("here")]

    async with asyncio.timeout(5):
        rest = await text_of("/stall 2 3600", kept)

    assert kept + rest == whole


@pytest.mark.parametrize(
    ("question", "form"),
    [
        ("/count", "/count N [DELAY_MS]"),
        ("/count ten", "/count N [DELAY_MS]"),
        ("/count -1", "/count N [DELAY_MS]"),
        ("/count 100001", "/count N [DELAY_MS]"),
        ("/count 5 60001", "/count N [DELAY_MS]"),
        ("/count 5 10 2", "/count N [DELAY_MS]"),
        ("/count ٣", "/count N [DELAY_MS]"),
        ("/echo", "/echo TEXT"),
        ("/fail", "/fail AFTER_CHUNKS"),
        ("/fail 10001", "/fail AFTER_CHUNKS"),
        ("/stall 3", "/stall AFTER_CHUNKS SECONDS"),
        ("/stall 3 3601", "/stall AFTER_CHUNKS SECONDS"),
        ("/stall 3 1e3", "/stall AFTER_CHUNKS SECONDS"),
        ("/markdown please", "/markdown"),
        ("/think 5", "/think M N [DELAY_MS]"),
        ("/think 5 5 60001", "/think M N [DELAY_MS]"),
        ("/think 5 5 5 5", "/think M N [DELAY_MS]"),
    ],
)
async def test_wrong_arguments_are_answered_with_the_right_ones(question: str, form: str) -> None:
    answer = await text_of(question)

    assert f"`{form}`" in answer
    assert answer.startswith("I cannot follow")


@pytest.mark.parametrize("question", ["/help", "/cuont 5"])
async def test_help_and_an_unknown_command_list_all_commands(question: str) -> None:
    answer = await text_of(question)

    for form in ("/echo TEXT", "/count N", "/markdown", "/think M", "/fail AFTER_CHUNKS", "/stall"):
        assert form in answer


async def test_a_path_is_no_command() -> None:
    assert "> /usr/bin/python3.11" in await text_of("/usr/bin/python3.11")


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Hello!", "hello"),
        ("What is this?", "about"),
        ("Hi, who are you?", "about"),
        ("Could you write me some Python code?", "python"),
        ("How do I query a database with SQL?", "sql"),
        ("Show me a table that compares WebSocket and SSE", "comparison"),
        ("I would like a poem.", "poem"),
        ("Make a plan for my weekend", "plan"),
        ("What happens when I reload the page?", "resume"),
        ("Tell me a LONG STORY", "story"),
    ],
)
async def test_a_questions_words_choose_the_answer(question: str, name: str) -> None:
    assert await text_of(question) == ANSWERS.named(name)


async def test_words_are_matched_whole() -> None:
    """The «hi» in «which» is no greeting, and the «list» in «listen» asks for none."""
    assert "> Which whale can listen?" in await text_of("Which whale can listen?")


@pytest.mark.parametrize(
    ("question", "quoted"),
    [
        ("Warum?\n\nUnd wie?", "> Warum?\n>\n> Und wie?\n"),
        ("鯨" * 300, "> " + "鯨" * 240 + "…\n"),
    ],
)
async def test_an_unfamiliar_question_is_quoted(question: str, quoted: str) -> None:
    assert quoted in await text_of(question)


@pytest.mark.parametrize(
    "name",
    ["hello", "about", "python", "sql", "comparison", "poem", "plan", "resume", "default"],
)
def test_prepared_answers_have_the_length_of_an_answer(name: str) -> None:
    assert 80 <= len(ANSWERS.named(name).split()) <= 300


def test_the_story_is_long() -> None:
    assert 700 <= len(ANSWERS.named("story").split()) <= 1100


def test_every_prepared_text_can_be_stored_as_it_is() -> None:
    for name in ("markdown", "story", "comparison", "resume", "default"):
        assert storable(ANSWERS.named(name)) == ANSWERS.named(name)
        assert "\r" not in ANSWERS.named(name)


@pytest.mark.parametrize(
    "construct",
    [
        *(f"\n{'#' * level} " for level in range(2, 7)),
        "\n- [x] ",
        "\n    - nested twice",
        "\n1. ",
        "| :---: | ---: |",
        "\n```python\n",
        "\n~~~diff\n",
        "\n> > ",
        "`inline code`",
        "](https://",
        "***both at once***",
        "~~text struck out~~",
        "\n[^one]: ",
        "\n---\n",
        "  \nand one by a backslash\\\n",
        "<script>",
        "javascript:",
        "🙂",
        "a" * 100,
    ],
)
async def test_the_markdown_page_uses_every_construct(construct: str) -> None:
    assert construct in await text_of("/markdown")


async def test_it_cannot_go_on_from_another_text() -> None:
    model = DemoModel(delay_ms=0)

    assert await model.continues_from(asking("hello"))
    assert await model.continues_from(asking("hello", ANSWERS.named("hello")[:7]))
    assert not await model.continues_from(asking("hello", "Something else"))
    assert not await model.continues_from(asking("hello", ANSWERS.named("hello") + " and more"))
    with pytest.raises(ValueError, match="something else"):
        await anext(model.generate(asking("hello", "Something else")))
