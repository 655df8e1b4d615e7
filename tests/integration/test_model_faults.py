"""What goes wrong with a model server: a code for each, the text so far, and who tries again."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from contextlib import aclosing, closing

import pytest

from app.models import openai_compatible
from app.models.client import Finished
from app.models.openai_events import retry_after
from tests.support.model_answers import KEY, Outcome, answer, asking, model_at
from tests.support.scripted_model import (
    CREDENTIALS,
    DONE,
    Cut,
    Hang,
    Pause,
    Reply,
    Step,
    event,
    finish,
    refusal,
    scripted_model,
    text,
    thought,
    usage,
)


async def scripted_answer(
    *steps: Step, first_seconds: float = 30, silence_seconds: float = 30
) -> Outcome:
    async with (
        scripted_model(*steps) as server,
        model_at(
            server.base_url, first_seconds=first_seconds, silence_seconds=silence_seconds
        ) as model,
    ):
        return await answer(model, asking("What now?"))


UNREADABLE = {
    "not JSON": b"data: {oops\n\n",
    "not UTF-8": b'data: {"choices": "\xff"}\n\n',
    "an array": event([]),
    "null": event(None),
    "choices that are a number": event({"choices": 5}),
    "a choice that is null": event({"choices": [None]}),
    "content that is a number": event({"choices": [{"delta": {"content": 5}}]}),
}


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        *((sent, "model_unreadable") for sent in UNREADABLE.values()),
        (event({"error": {"message": f"boom {KEY}", "code": 500}}), "model_error"),
    ],
    ids=[*UNREADABLE, "an error"],
)
async def test_an_event_that_cannot_be_read_fails_the_answer_and_keeps_the_text(
    sent: bytes, code: str
) -> None:
    outcome = await scripted_answer(text("So far"), sent, finish(), DONE)

    assert outcome.text == "So far"
    assert outcome.code == code
    assert KEY not in str(outcome.failure)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "model_error"),
        (408, "model_error"),
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


async def test_a_stream_that_ends_without_an_end_marker_has_no_end() -> None:
    outcome = await scripted_answer(text("Half of"))

    assert (outcome.text, outcome.code) == ("Half of", "model_unended")


async def test_done_without_a_finish_reason_is_no_end() -> None:
    outcome = await scripted_answer(text("Half of"), DONE)

    assert (outcome.text, outcome.code) == ("Half of", "model_unended")


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


async def test_a_server_that_does_not_begin_is_a_timeout() -> None:
    outcome = await scripted_answer(Hang(), first_seconds=0.1)

    assert (outcome.text, outcome.code) == ("", "model_timeout")


async def test_a_server_that_falls_silent_is_a_timeout() -> None:
    outcome = await scripted_answer(text("So far"), Hang(), silence_seconds=0.1)

    assert (outcome.text, outcome.code) == ("So far", "model_timeout")


async def test_a_server_that_only_says_that_it_is_there_is_silent() -> None:
    """Comments keep a connection open, and an answer waiting for ever."""
    alive: list[Step] = [step for _ in range(100) for step in (b": busy\n\n", Pause(0.02))]
    outcome = await scripted_answer(*alive, text("Late"), finish(), DONE, first_seconds=0.2)

    assert outcome.code == "model_timeout"


@pytest.mark.parametrize("marker", [(), (DONE,)], ids=["no end marker", "an end marker"])
async def test_a_stream_that_stays_open_after_the_end_does_not_hold_the_answer(
    monkeypatch: pytest.MonkeyPatch, marker: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(openai_compatible, "_AFTERMATH_SECONDS", 0.1)
    outcome = await scripted_answer(
        text("All of it."), finish(), *marker, Hang(), silence_seconds=0.5
    )

    assert outcome.text == "All of it."
    assert outcome.finished == Finished(None, "stop")


async def test_a_refusal_of_the_model_is_shown_and_fails_the_answer() -> None:
    outcome = await scripted_answer(refusal("I cannot"), refusal(" say."), finish(), DONE)

    assert (outcome.text, outcome.code) == ("I cannot say.", "model_refused")


async def test_a_filter_that_ends_the_answer_is_a_refusal() -> None:
    outcome = await scripted_answer(text("First"), finish("content_filter"), DONE)

    assert (outcome.text, outcome.code) == ("First", "model_refused")


async def test_a_filter_that_turns_the_question_away_is_a_refusal() -> None:
    outcome = await scripted_answer(Reply(400, {"error": {"code": "content_filter"}}))

    assert outcome.code == "model_refused"


YES = (text("Yes."), finish(), DONE)


@pytest.mark.parametrize(
    "failure",
    [Reply(500, {}), Reply(503, {}), Reply(429, {}), Reply(529, {}), Cut(), DONE],
    ids=["500", "503", "429", "529", "dropped", "empty"],
)
async def test_what_may_pass_is_tried_again_before_the_first_piece(failure: Step) -> None:
    async with (
        scripted_model(*YES, first=[[failure], [failure]]) as server,
        model_at(server.base_url, retries=2) as model,
    ):
        outcome = await answer(model, asking("What now?"))

    assert outcome.text == "Yes."
    assert len(server.received) == 3
    assert server.received[0].body == server.received[2].body


async def test_tries_are_bounded() -> None:
    async with (
        scripted_model(Reply(503, {})) as server,
        model_at(server.base_url, retries=2) as model,
    ):
        outcome = await answer(model, asking("What now?"))

    assert outcome.code == "model_error"
    assert len(server.received) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    async with (
        scripted_model(*YES, first=[[Reply(status, {})]]) as server,
        model_at(server.base_url, retries=2) as model,
    ):
        outcome = await answer(model, asking("What now?"))

    assert outcome.failure is not None
    assert len(server.received) == 1


@pytest.mark.parametrize("before", [text("So far"), thought("Hm")], ids=["text", "thought"])
async def test_nothing_is_tried_again_after_the_first_piece(before: bytes) -> None:
    """What was shown cannot be taken back, and a second try would say it differently."""
    async with (
        scripted_model(*YES, first=[[before, Cut()]]) as server,
        model_at(server.base_url, retries=2) as model,
    ):
        outcome = await answer(model, asking("What now?"))

    assert outcome.code == "model_cut_off"
    assert len(server.received) == 1


async def test_retry_after_is_waited_for() -> None:
    async with (
        scripted_model(*YES, first=[[Reply(429, {}, ("Retry-After: 0.4",))]]) as server,
        model_at(server.base_url, retries=1) as model,
    ):
        began = time.monotonic()
        outcome = await answer(model, asking("What now?"))

    assert outcome.text == "Yes."
    assert time.monotonic() - began >= 0.4


async def test_a_retry_after_beyond_the_bound_fails_at_once() -> None:
    async with (
        scripted_model(*YES, first=[[Reply(429, {}, ("Retry-After: 3600",))]]) as server,
        model_at(server.base_url, retries=1, retry_after_seconds=5) as model,
    ):
        outcome = await answer(model, asking("What now?"))

    assert outcome.code == "model_rate_limited"
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("Fri, 02 Jan 1970 00:00:10 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("-3", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_in_both_its_forms(written: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": written}, now=86_400.0) == seconds


async def test_a_server_that_fails_again_and_again_is_left_alone() -> None:
    async with (
        scripted_model(Reply(503, {})) as server,
        model_at(server.base_url, circuit_failures=3) as model,
    ):
        codes = [(await answer(model, asking("What now?"))).code for _ in range(5)]

    assert codes == ["model_error"] * 3 + ["model_unavailable"] * 2
    assert len(server.received) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 429])
async def test_a_server_that_turns_questions_away_is_not_in_a_bad_way(status: int) -> None:
    async with (
        scripted_model(Reply(status, {})) as server,
        model_at(server.base_url, circuit_failures=1) as model,
    ):
        for _ in range(3):
            await answer(model, asking("What now?"))

    assert len(server.received) == 3


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
