"""The OpenAI-compatible model: a scripted server for its words, a real llama.cpp for the rest.

What goes wrong is in ``test_model_faults.py``.
"""

from __future__ import annotations

import itertools
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import aclosing

import httpx
import pytest

from app.domain.messages import Role, Usage
from app.models.client import Finished, Turn
from tests.support.llama import ANSWER_MAX_TOKENS, CONTEXT_TOKENS, MODEL_NAME, running_llama
from tests.support.model_answers import KEY, Outcome, answer, asking, model_at
from tests.support.scripted_model import (
    CREDENTIALS,
    DONE,
    Cut,
    Reply,
    Step,
    event,
    finish,
    scripted_model,
    text,
    thought,
    usage,
)
from tests.support.waiting import eventually


async def scripted_answer(*steps: Step) -> Outcome:
    async with scripted_model(*steps) as server, model_at(server.base_url) as model:
        return await answer(model, asking("What now?"))


async def test_a_streamed_answer_arrives_piece_by_piece_with_its_usage() -> None:
    outcome = await scripted_answer(
        event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
        text("Good"),
        text(" day"),
        b": a comment\n\n",
        text(""),
        text("!\n"),
        finish("length"),
        usage(12, 3),
        DONE,
    )

    assert outcome.pieces == ["Good", " day", "!\n"]
    assert outcome.finished == Finished(Usage(12, 3), "length")


async def test_usage_is_none_where_the_server_does_not_count() -> None:
    outcome = await scripted_answer(text("Yes."), finish(), DONE)

    assert outcome.finished == Finished(None, "stop")


async def test_the_request_holds_the_conversation_within_its_budget() -> None:
    old = Turn(Role.USER, "x" * 50), Turn(Role.ASSISTANT, "y" * 50)
    recent = Turn(Role.USER, "Who are you?"), Turn(Role.ASSISTANT, "A model.")
    async with (
        scripted_model(text("Yes."), finish(), DONE) as server,
        model_at(
            f"http://{server.address}/v1", context_tokens=80, system_prompt="Be brief."
        ) as model,
    ):
        await answer(model, asking("Really?", *old, *recent))

    (received,) = server.received
    assert received.path == "/v1/chat/completions"
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.body["model"] == MODEL_NAME
    assert received.body["stream"] is True
    assert received.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A model."},
        {"role": "user", "content": "Really?"},
    ]


async def test_credentials_in_the_address_take_the_place_of_the_key() -> None:
    """For a server behind a proxy that asks for a password."""
    async with (
        scripted_model(text("Yes."), finish(), DONE) as server,
        model_at(server.base_url) as model,
    ):
        await answer(model, asking("What now?"))

    (received,) = server.received
    assert received.headers["authorization"] == f"Basic {b64encode(CREDENTIALS.encode()).decode()}"


async def test_nothing_of_another_account_in_the_environment_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A library that reads the environment by itself must not give one server another's key."""
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "of-another-account")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    async with (
        scripted_model(text("Yes."), finish(), DONE) as server,
        model_at(f"http://{server.address}/v1", api_key=None) as model,
    ):
        outcome = await answer(model, asking("What now?"))

    assert outcome.text == "Yes."
    (received,) = server.received
    assert "authorization" not in received.headers
    assert "of-another-account" not in received.headers.values()


async def test_a_character_cut_in_two_by_the_server_arrives_whole() -> None:
    outcome = await scripted_answer(
        text("a\ud83d"), text("\ude00b"), text("\x00\ud83d"), text("!"), finish(), DONE
    )

    assert outcome.pieces == ["a", "\U0001f600b", "\ufffd", "\ufffd!"]


async def test_half_a_character_at_the_end_is_replaced() -> None:
    outcome = await scripted_answer(text("a\ud83d"), finish(), DONE)

    assert outcome.pieces == ["a", "\ufffd"]


async def test_thoughts_come_apart_from_the_text() -> None:
    outcome = await scripted_answer(
        thought("Let me"), thought(" see\ud83d"), thought("\ude00."), text("Yes."), finish(), DONE
    )

    assert "".join(outcome.thoughts) == "Let me see\U0001f600."
    assert outcome.pieces == ["Yes."]


@pytest.mark.parametrize(
    "sent",
    [
        (thought("Hm.", name="reasoning"), text("Yes.")),
        (text("<think>Hm"), text(".</think>\n"), text("\nYes.")),
    ],
    ids=["the other name", "tags"],
)
async def test_thoughts_in_another_form(sent: tuple[bytes, ...]) -> None:
    outcome = await scripted_answer(*sent, finish(), DONE)

    assert ("".join(outcome.thoughts), outcome.text) == ("Hm.", "Yes.")


async def test_thoughts_alone_are_no_answer() -> None:
    outcome = await scripted_answer(text("<think>Hm"), finish("length"), DONE)

    assert (outcome.thoughts, outcome.code) == (["Hm"], "empty_answer")


TOO_LONG = {
    "llama.cpp": {"type": "exceed_context_size_error", "n_ctx": 600, "message": "too large"},
    "OpenAI": {"code": "context_length_exceeded", "message": "m"},
    "vLLM": {"message": "This model's maximum context length is 600 tokens."},
}


@pytest.mark.parametrize("said", TOO_LONG.values(), ids=TOO_LONG.keys())
async def test_a_conversation_that_is_too_long_after_all_is_given_shorter(
    said: dict[str, object],
) -> None:
    """The settings say that the model takes more than it does. Its server's word is remembered."""
    before = [Turn(Role.USER, "x" * 900), Turn(Role.ASSISTANT, "y" * 900)]
    yes = (text("Yes."), finish(), DONE)
    async with (
        scripted_model(*yes, first=[[Reply(400, {"error": said})]]) as server,
        model_at(server.base_url, context_tokens=1200) as model,
    ):
        outcomes = [await answer(model, asking("Really?", *before)) for _ in range(2)]

    assert [outcome.text for outcome in outcomes] == ["Yes."] * 2
    given = [len(received.body["messages"]) for received in server.received]
    assert given == [3, 1, 1 if "n_ctx" in said else 3]


async def test_a_model_that_takes_nothing_fails_the_answer() -> None:
    async with (
        scripted_model(Reply(400, {"error": TOO_LONG["OpenAI"]})) as server,
        model_at(server.base_url, retries=2) as model,
    ):
        outcome = await answer(model, asking("Really?"))

    assert outcome.code == "model_error"
    assert len(server.received) == 5


async def test_it_goes_on_after_a_text_where_it_was_set_up_to() -> None:
    async with (
        scripted_model(text(" 2, 3"), finish(), DONE) as server,
        model_at(server.base_url, continues=True) as model,
    ):
        request = asking("Count.", kept="1, ")
        assert model.continues
        assert await model.continues_from(request)
        outcome = await answer(model, request)

    (received,) = server.received
    assert received.body["messages"][-1] == {"role": "assistant", "content": "1, "}
    assert received.body["continue_final_message"] is True
    assert received.body["add_generation_prompt"] is False
    assert outcome.text == " 2, 3"


async def test_nothing_left_to_say_is_no_empty_answer() -> None:
    """The worker before died between the last word and the end."""
    async with (
        scripted_model(finish(), DONE) as server,
        model_at(server.base_url, continues=True) as model,
    ):
        outcome = await answer(model, asking("Count.", kept="1, 2, 3."))

    assert outcome.failure is None


async def test_a_text_that_leaves_no_room_for_more_is_started_over() -> None:
    async with model_at("http://127.0.0.1:9/v1", continues=True, context_tokens=1000) as model:
        assert await model.continues_from(asking("Count.", kept="a" * 1400))
        assert not await model.continues_from(asking("Count.", kept="a" * 1600))


TEMPLATED = "<|user|>Count.<|assistant|>"


@pytest.mark.parametrize(
    ("reply", "proved"),
    [
        (Reply(200, {"prompt": f"{TEMPLATED}So far: 1, 2,\n3 and "}), True),
        (Reply(200, {"prompt": f"{TEMPLATED}So far: 1, 2,\n3 and"}), False),
        (Reply(200, {"prompt": f"{TEMPLATED}So far: 1, 2,\n3 and <|end|>"}), False),
        (Reply(200, {"prompt": 5}), False),
        (Reply(200, []), False),
        (Reply(404, {}), False),
    ],
)
async def test_whether_a_server_goes_on_is_asked_once(reply: Reply, proved: bool) -> None:
    async with (
        scripted_model(by_path={"/apply-template": [reply]}) as server,
        model_at(server.base_url) as model,
    ):
        assert await model.continues_from(asking("Count."))
        assert server.received == [], "there was nothing to go on with"
        for _ in range(2):
            assert await model.continues_from(asking("Count.", kept="1, ")) is proved

    assert [received.path for received in server.received] == ["/apply-template"]


@pytest.mark.parametrize("reply", [Reply(503, {}), Cut(), Reply(429, {})])
async def test_a_server_that_does_not_say_is_asked_again(reply: Step) -> None:
    yes = Reply(200, {"prompt": f"{TEMPLATED}So far: 1, 2,\n3 and "})
    async with (
        scripted_model(yes, first=[[reply]], by_path={}) as server,
        model_at(server.base_url) as model,
    ):
        request = asking("Count.", kept="1, ")
        assert not await model.continues_from(request)
        assert await model.continues_from(request)

    assert len(server.received) == 2


async def test_it_does_not_go_on_after_a_text_unless_it_is_known_to() -> None:
    async with model_at("http://127.0.0.1:9/v1", continues=False) as model:
        assert not model.continues
        assert await model.continues_from(asking("What now?"))
        assert not await model.continues_from(asking("What now?", kept="So"))
        with pytest.raises(ValueError, match="cannot go on"):
            await anext(model.generate(asking("What now?", kept="So")))


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    with running_llama() as base_url:
        yield base_url


@pytest.mark.model
@pytest.mark.timeout(120)
async def test_a_real_model_streams_an_answer(llama: str) -> None:
    async with model_at(llama, api_key=None) as model:
        outcome = await answer(
            model,
            asking(
                "And what is the capital of Italy?",
                Turn(Role.USER, "What is the capital of France?"),
                Turn(Role.ASSISTANT, "The capital of France is Paris."),
            ),
        )

    assert outcome.failure is None
    assert len(outcome.pieces) > 1, "it did not stream"
    assert outcome.text.strip()
    assert outcome.finished is not None
    assert outcome.finished.finish_reason in {"stop", "length"}
    counted = outcome.finished.usage
    assert counted is not None
    assert counted.prompt_tokens > 10
    assert 1 <= counted.completion_tokens <= ANSWER_MAX_TOKENS


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_real_model_answers_a_question_longer_than_its_context(llama: str) -> None:
    """Shortened by our own count first, and by the server's word where that was not enough."""
    async with model_at(llama, api_key=None, context_tokens=100_000) as model:
        outcome = await answer(model, asking("鯨" * 5000))

    assert outcome.failure is None
    assert outcome.finished is not None
    assert outcome.finished.usage is not None
    assert outcome.finished.usage.prompt_tokens < CONTEXT_TOKENS


@pytest.mark.model
@pytest.mark.timeout(120)
async def test_a_real_server_stops_generating_when_nobody_reads(llama: str) -> None:
    """It has one place, which an answer that was given up must not hold."""
    slots = f"{llama.removesuffix('/v1')}/slots"

    def idle() -> bool:
        (place,) = httpx.get(slots).json()
        return not place["is_processing"]

    async def seconds(*, whole: bool) -> float:
        async with aclosing(model.generate(asking("Tell me a very long story."))) as pieces:
            await anext(pieces)
            began = time.monotonic()
            async for _ in pieces:
                if not whole:
                    break
        await eventually(idle, "the server to stop generating")
        return time.monotonic() - began

    async with model_at(llama, api_key=None) as model:
        undisturbed = await seconds(whole=True)
        assert await seconds(whole=False) < undisturbed / 2


@pytest.mark.model
@pytest.mark.timeout(300)
async def test_the_seam_of_a_real_model_drops_and_repeats_no_character(llama: str) -> None:
    """Cut after each of its pieces, and within words, it says what it would have said anyway.

    The model is deterministic here: it takes the likeliest word each time. What it says after a
    cut is then what it said there before, to the character; a space that a tokenizer or a template
    drops at the seam, or says twice, is a difference.
    """
    async with model_at(llama, api_key=None) as model:
        question = "Write: The quick brown fox jumps over the lazy dog."
        whole = await answer(model, asking(question))
        assert len(whole.pieces) > 8
        ends = list(itertools.accumulate(len(piece) for piece in whole.pieces))[:-1]
        cuts = ends[:4] + ends[4::4]
        assert any(whole.text[cut] == " " for cut in cuts), "no cut before a space"
        for cut in cuts:
            request = asking(question, kept=whole.text[:cut])
            assert await model.continues_from(request)
            said = ""
            async with aclosing(model.generate(request)) as pieces:
                async for piece in pieces:
                    said += piece if isinstance(piece, str) else ""
                    if len(said) > 12:
                        break
            assert said
            before = whole.text[cut:]
            assert before.startswith(said[: len(before)]), f"cut at {cut}: {said!r}"
