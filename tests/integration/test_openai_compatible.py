"""The OpenAI-compatible model: a real llama.cpp server, and a scripted one for the faults."""

from __future__ import annotations

import asyncio
import socket
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, closing

import pytest

from app.domain.errors import AnswerFailed
from app.domain.messages import Role, Usage
from app.models.client import Finished, GenerationRequest, Turn
from app.models.openai_compatible import OpenAICompatibleModel
from tests.support.llama import ANSWER_MAX_TOKENS, MODEL_NAME, running_llama
from tests.support.scripted_model import (
    CREDENTIALS,
    DONE,
    Cut,
    Hang,
    Reply,
    Step,
    event,
    finish,
    scripted_model,
    text,
    usage,
)

KEY = "sk-a-key-that-nobody-must-see"


@asynccontextmanager
async def model_at(
    base_url: str,
    *,
    api_key: str | None = KEY,
    connect_seconds: float = 5,
    silence_seconds: float = 30,
    context_characters: int = 4000,
) -> AsyncIterator[OpenAICompatibleModel]:
    model = OpenAICompatibleModel(
        base_url=base_url,
        api_key=api_key,
        model=MODEL_NAME,
        connect_seconds=connect_seconds,
        silence_seconds=silence_seconds,
        context_characters=context_characters,
    )
    try:
        yield model
    finally:
        await model.close()


def asking(question: str, *before: Turn, kept: str = "") -> GenerationRequest:
    return GenerationRequest("m-1", "s-1", [*before, Turn(Role.USER, question)], kept)


class Outcome:
    """An answer as far as it got."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.finished: Finished | None = None
        self.failure: AnswerFailed | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def code(self) -> str | None:
        return self.failure.answer_code if self.failure else None


async def answer(model: OpenAICompatibleModel, request: GenerationRequest) -> Outcome:
    outcome = Outcome()
    try:
        async with aclosing(model.generate(request)) as pieces:
            async for piece in pieces:
                assert outcome.finished is None, "something came after the end"
                if isinstance(piece, Finished):
                    outcome.finished = piece
                else:
                    assert piece, "an empty piece"
                    outcome.pieces.append(piece)
    except AnswerFailed as failure:
        outcome.failure = failure
    assert (outcome.finished is None) != (outcome.failure is None)
    return outcome


async def scripted_answer(*steps: Step, silence_seconds: float = 30) -> Outcome:
    async with (
        scripted_model(*steps) as server,
        model_at(server.base_url, silence_seconds=silence_seconds) as model,
    ):
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
        model_at(f"http://{server.address}/v1", context_characters=60) as model,
    ):
        await answer(model, asking("Really?", *old, *recent))

    (received,) = server.received
    assert received.path == "/v1/chat/completions"
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.body["model"] == MODEL_NAME
    assert received.body["stream"] is True
    assert received.body["messages"] == [
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


UNREADABLE = {
    "not JSON": b"data: {oops\n\n",
    "not UTF-8": b'data: {"choices": "\xff"}\n\n',
    "an array": event([]),
    "null": event(None),
    "choices that are a number": event({"choices": 5}),
    "a choice that is null": event({"choices": [None]}),
    "content that is a number": event({"choices": [{"delta": {"content": 5}}]}),
    "an error": event({"error": {"message": f"boom {KEY}", "code": 500}}),
}


@pytest.mark.parametrize("sent", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_an_event_that_cannot_be_read_fails_the_answer_and_keeps_the_text(
    sent: bytes,
) -> None:
    outcome = await scripted_answer(text("So far"), sent, finish(), DONE)

    assert outcome.text == "So far"
    assert outcome.code == "model_error"
    assert KEY not in str(outcome.failure)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "model_error"),
        (401, "model_unauthorized"),
        (403, "model_unauthorized"),
        (404, "model_not_found"),
        (429, "model_rate_limited"),
        (500, "model_error"),
        (503, "model_error"),
    ],
)
async def test_a_refusal_has_its_own_code_and_tells_no_secret(status: int, code: str) -> None:
    async with (
        scripted_model(
            Reply(status, {"error": {"message": f"{KEY} at {CREDENTIALS}"}}, ("Retry-After: 1",))
        ) as server,
        model_at(server.base_url) as model,
    ):
        outcome = await answer(model, asking("What now?"))

    assert outcome.code == code
    detail = str(outcome.failure)
    assert KEY not in detail
    assert CREDENTIALS not in detail
    assert server.address not in detail
    assert len(server.received) == 1


async def test_a_cut_stream_keeps_what_had_come() -> None:
    outcome = await scripted_answer(text("Half of"), Cut())

    assert (outcome.text, outcome.code) == ("Half of", "model_cut_off")


async def test_a_stream_that_ends_without_an_end_marker_is_cut_off() -> None:
    outcome = await scripted_answer(text("Half of"))

    assert (outcome.text, outcome.code) == ("Half of", "model_cut_off")


async def test_done_without_a_finish_reason_is_no_end() -> None:
    outcome = await scripted_answer(text("Half of"), DONE)

    assert (outcome.text, outcome.code) == ("Half of", "model_cut_off")


async def test_an_answer_is_whole_when_only_the_streams_end_is_missing() -> None:
    outcome = await scripted_answer(text("All of it."), finish(), Cut())

    assert outcome.text == "All of it."
    assert outcome.finished == Finished(None, "stop")


async def test_an_answer_without_text_is_a_failure() -> None:
    outcome = await scripted_answer(text(""), finish(), usage(9, 0), DONE)

    assert outcome.code == "empty_answer"


async def test_a_connection_dropped_before_the_response_is_unreachable() -> None:
    outcome = await scripted_answer(Cut())

    assert outcome.code == "model_unreachable"


async def test_a_refused_connection_is_unreachable() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound and never listening: nobody else can take it
        port = taken.getsockname()[1]
        async with model_at(f"http://{CREDENTIALS}@127.0.0.1:{port}/v1") as model:
            outcome = await answer(model, asking("What now?"))

    assert outcome.code == "model_unreachable"
    assert CREDENTIALS not in str(outcome.failure)
    assert str(port) not in str(outcome.failure)


@pytest.mark.skipif(sys.platform != "linux", reason="fills a listening queue as Linux counts it")
async def test_a_connection_that_does_not_come_about_is_unreachable() -> None:
    with closing(socket.socket()) as full, closing(socket.socket()) as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.connect(full.getsockname())
        port = full.getsockname()[1]
        async with model_at(f"http://127.0.0.1:{port}/v1", connect_seconds=0.1) as model:
            outcome = await answer(model, asking("What now?"))

    assert outcome.code == "model_unreachable"


@pytest.mark.parametrize("before", [(), (text("So far"),)], ids=["at once", "after a piece"])
async def test_a_silent_server_is_a_timeout(before: tuple[bytes, ...]) -> None:
    outcome = await scripted_answer(*before, Hang(), silence_seconds=0.1)

    assert outcome.code == "model_timeout"
    assert outcome.text == ("So far" if before else "")


async def test_closing_the_answer_closes_the_connection_to_the_server() -> None:
    async with (
        scripted_model(text("One"), Hang()) as server,
        model_at(server.base_url) as model,
    ):
        pieces = model.generate(asking("What now?"))
        assert await anext(pieces) == "One"

        await pieces.aclose()

        async with asyncio.timeout(5):
            await server.left_by_client.wait()


async def test_cancelling_the_task_closes_the_connection_to_the_server() -> None:
    async with (
        scripted_model(text("One"), Hang()) as server,
        model_at(server.base_url) as model,
    ):
        first = asyncio.Event()

        async def read() -> None:
            async with aclosing(model.generate(asking("What now?"))) as pieces:
                async for _ in pieces:
                    first.set()

        reading = asyncio.create_task(read())
        async with asyncio.timeout(5):
            await first.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

        async with asyncio.timeout(5):
            await server.left_by_client.wait()


async def test_it_does_not_go_on_after_a_text() -> None:
    async with model_at("http://127.0.0.1:9/v1") as model:
        assert model.continues is False
        assert model.continues_from(asking("What now?"))
        assert not model.continues_from(asking("What now?", kept="So"))
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
@pytest.mark.timeout(120)
async def test_a_real_model_refuses_a_question_longer_than_its_context(llama: str) -> None:
    async with model_at(llama, api_key=None) as model:
        outcome = await answer(model, asking("鯨" * 5000))

    assert outcome.code == "model_error"
    assert "400" in str(outcome.failure)
