"""An answer is finished once, by the attempt whose turn it is."""

from __future__ import annotations

import pytest

from app.db import attempts, history
from app.db.engine import Database
from app.db.results import (
    AlreadyFinal,
    Begun,
    Exhausted,
    Gone,
    StopRequested,
    StopResult,
    Turn,
    Unfinished,
)
from app.domain.errors import NotFound
from app.domain.messages import AnswerError, Message, Role, Status, Usage
from tests.support.conversations import Talker, after, never, told, told_types


@pytest.fixture
async def ada(database: Database) -> Talker:
    return await Talker(database).arrive()


async def test_an_attempt_begins_with_all_that_a_model_needs(ada: Talker) -> None:
    await ada.exchange("One?", "1")
    accepted = await ada.ask("Two?")

    begun = await _begin(ada, accepted.assistant_message)

    assert begun.attempt == begun.message.attempt == 1
    assert begun.message.status is Status.STREAMING
    assert begun.user_message == accepted.user_message
    assert (begun.user_id, begun.recovered) == ("ada", False)
    assert begun.conversation == [
        Turn(Role.USER, "One?"),
        Turn(Role.ASSISTANT, "1"),
        Turn(Role.USER, "Two?"),
    ]


async def test_a_conversation_is_cut_before_a_question(ada: Talker) -> None:
    for number in "12":
        await ada.exchange(f"{number}?", number)
    accepted = await ada.ask("3?")
    answer = accepted.assistant_message

    newest = [Turn(Role.USER, "2?"), Turn(Role.ASSISTANT, "2"), Turn(Role.USER, "3?")]
    for max_turns, expected in [(1, newest[2:]), (2, newest[2:]), (3, newest), (4, newest)]:
        begun = await _begin(ada, answer, max_turns=max_turns)
        assert begun.conversation == expected
        await _release(ada, begun)


async def test_an_answer_that_said_nothing_is_not_in_the_conversation(ada: Talker) -> None:
    silent = await _begin(ada, (await ada.ask("One?")).assistant_message)
    await ada.finish(silent.message.message_id, 1, "", status=Status.FAILED)

    begun = await _begin(ada, (await ada.ask("Two?")).assistant_message)

    assert begun.conversation == [Turn(Role.USER, "One?"), Turn(Role.USER, "Two?")]


async def test_an_answer_that_is_generated_again_does_not_know_itself(ada: Talker) -> None:
    accepted = await ada.exchange("One?", "1")
    await ada.ask_again(accepted.assistant_message.message_id)

    begun = await _begin(ada, accepted.assistant_message)

    assert begun.conversation == [Turn(Role.USER, "One?")]


async def test_a_finished_answer_is_stored_with_its_events(ada: Talker) -> None:
    begun = await _begin(ada, (await ada.ask()).assistant_message)

    finished = await ada.finish(
        begun.message.message_id, 1, "Fine.", usage=Usage(7, 2), now=after(3)
    )

    assert finished is not None
    assert (finished.content, finished.status, finished.is_complete) == (
        "Fine.",
        Status.COMPLETE,
        True,
    )
    assert finished.completed_at == "2026-01-31T12:00:03.123Z"
    assert finished.usage == Usage(7, 2)
    assert await _stored(ada, finished) == finished
    assert (await told_types(ada.database))[-2:] == ["STREAM_STARTED", "STREAM_COMPLETED"]
    assert (await told(ada.database))[-1]["contentLength"] == 5


async def test_a_failed_answer_keeps_its_text_and_says_why(ada: Talker) -> None:
    begun = await _begin(ada, (await ada.ask()).assistant_message)
    error = AnswerError("model_error", "The model went away.")

    await ada.finish(begun.message.message_id, 1, "Half", status=Status.FAILED, error=error)

    stored = await _stored(ada, begun.message)
    assert (stored.status, stored.content, stored.error) == (Status.FAILED, "Half", error)
    assert (await told_types(ada.database))[-1] == "STREAM_FAILED"


async def test_without_its_events_an_answer_is_not_finished(ada: Talker) -> None:
    begun = await _begin(ada, (await ada.ask()).assistant_message)

    with pytest.raises(AssertionError, match="about to be changed"):
        await ada.finish(begun.message.message_id, 1, events=never)

    assert (await _stored(ada, begun.message)).status is Status.STREAMING


async def test_an_answer_cannot_be_finished_as_unfinished(ada: Talker) -> None:
    begun = await _begin(ada, (await ada.ask()).assistant_message)

    with pytest.raises(ValueError, match="not a final state"):
        await ada.finish(begun.message.message_id, 1, status=Status.STREAMING)


async def test_a_second_final_state_changes_nothing(ada: Talker) -> None:
    begun = await _begin(ada, (await ada.ask()).assistant_message)
    first = await ada.finish(begun.message.message_id, 1, "Fine.")

    late = await ada.finish(
        begun.message.message_id, 1, "Fi", status=Status.CANCELLED, events=never
    )

    assert late is None
    assert await _stored(ada, begun.message) == first


async def test_the_same_final_state_sent_again_is_recognised(ada: Talker) -> None:
    begun = await _begin(ada, (await ada.ask()).assistant_message)
    first = await ada.finish(begun.message.message_id, 1, "Fine.", usage=Usage(1, 2))

    again = await ada.finish(
        begun.message.message_id, 1, "Fine.", usage=Usage(1, 2), now=after(9), events=never
    )

    assert again == first


async def test_an_attempt_that_was_superseded_cannot_finish(ada: Talker) -> None:
    answer = (await ada.ask()).assistant_message
    await _begin(ada, answer)
    second = await _begin(ada, answer)

    assert (second.attempt, second.recovered) == (2, True)
    assert await ada.finish(answer.message_id, 1, "From the dead", events=never) is None
    assert await ada.finish(answer.message_id, 2, "From the living") is not None
    assert (await told_types(ada.database))[-3:] == [
        "STREAM_STARTED",
        "STREAM_RECOVERED",
        "STREAM_COMPLETED",
    ]


async def test_an_answer_is_given_up_after_as_many_lost_attempts_as_allowed(
    ada: Talker,
) -> None:
    answer = (await ada.ask()).assistant_message
    await _begin(ada, answer)
    await _begin(ada, answer)
    last = await _begin(ada, answer)

    exhausted = await ada.begin(answer.message_id)

    assert isinstance(exhausted, Exhausted)
    assert exhausted.message == last.message == await _stored(ada, answer)
    settled = await ada.finish(answer.message_id, exhausted.message.attempt, status=Status.FAILED)
    assert settled is not None


async def test_an_answer_that_was_handed_over_was_not_lost(ada: Talker) -> None:
    answer = (await ada.ask()).assistant_message

    for number in range(1, 6):
        begun = await _begin(ada, answer)
        assert (begun.attempt, begun.recovered) == (number, False)
        assert await _release(ada, begun)

    assert (await _stored(ada, answer)).status is Status.QUEUED


async def test_only_the_running_attempt_can_be_handed_over(ada: Talker) -> None:
    answer = (await ada.ask()).assistant_message
    first = await _begin(ada, answer)
    second = await _begin(ada, answer)

    assert not await _release(ada, first)
    assert await _release(ada, second)
    assert not await _release(ada, second)
    await ada.delete()
    assert not await _release(ada, second)


async def test_there_is_nothing_to_begin_once_an_answer_is_final(ada: Talker) -> None:
    accepted = await ada.exchange("One?", "1")

    found = await ada.begin(accepted.assistant_message.message_id)

    assert isinstance(found, AlreadyFinal)
    assert (found.message.content, found.user_id) == ("1", "ada")
    assert found.user_message == accepted.user_message


async def test_what_is_no_answer_or_gone_is_not_begun(ada: Talker) -> None:
    accepted = await ada.ask()
    assert await ada.begin(accepted.user_message.message_id) == Gone()
    assert await ada.begin("no-such-message") == Gone()

    await ada.delete()

    assert await ada.begin(accepted.assistant_message.message_id) == Gone()
    assert await ada.finish(accepted.assistant_message.message_id, 0, events=never) is None


async def test_a_stop_outlives_whoever_would_have_heard_it(ada: Talker) -> None:
    accepted = await ada.ask()
    answer = accepted.assistant_message

    assert (await _stop(ada, answer)).accepted
    assert (await _stop(ada, answer)).accepted

    found = await ada.begin(answer.message_id)
    assert isinstance(found, StopRequested)
    assert found.message.status is Status.QUEUED
    assert found.user_message == accepted.user_message
    settled = await ada.finish(
        answer.message_id, found.message.attempt, "", status=Status.CANCELLED
    )
    assert settled is not None
    assert settled.status is Status.CANCELLED


async def test_a_stop_comes_too_late_for_a_final_answer(ada: Talker) -> None:
    answer = (await ada.exchange("One?", "1")).assistant_message

    stop = await _stop(ada, answer)

    assert not stop.accepted
    assert stop.message.status is Status.COMPLETE


async def test_a_stop_that_was_accepted_holds_although_the_model_came_to_its_end(
    ada: Talker,
) -> None:
    answer = (await ada.ask()).assistant_message
    await _begin(ada, answer)
    assert (await _stop(ada, answer)).accepted

    finished = await ada.finish(answer.message_id, 1, "Fine.")
    again = await ada.finish(answer.message_id, 1, "Fine.")

    assert finished is not None
    assert (finished.status, finished.content) == (Status.CANCELLED, "Fine.")
    assert again == finished


async def test_only_the_owner_stops_an_answer_and_nothing_else(ada: Talker) -> None:
    accepted = await ada.ask()
    eve = await Talker(ada.database, user_id="eve").arrive()

    for talker, message in [(eve, accepted.assistant_message), (ada, accepted.user_message)]:
        with pytest.raises(NotFound):
            await _stop(talker, message)
    assert isinstance(await ada.begin(accepted.assistant_message.message_id), Begun)


async def test_the_reconciler_finds_what_has_no_final_state(ada: Talker) -> None:
    await ada.exchange("Done?", "Yes.")
    queued = (await ada.ask(session_id="s-2", now=after(1))).assistant_message
    streaming = (await ada.ask(session_id="s-3", now=after(1))).assistant_message
    await ada.begin(streaming.message_id, now=after(2))

    found = await history.unfinished(ada.database, limit=10, after=None)

    assert found == [
        Unfinished("ada", "s-2", queued.message_id, 0, Status.QUEUED),
        Unfinished("ada", "s-3", streaming.message_id, 1, Status.STREAMING),
    ]


async def test_the_reconciler_goes_through_them_page_by_page(ada: Talker) -> None:
    asked = [
        (await ada.ask(session_id=f"s-{number}")).assistant_message.message_id
        for number in range(5)
    ]

    seen: list[str] = []
    last = None
    while page := await history.unfinished(ada.database, limit=2, after=last):
        seen += [one.message_id for one in page]
        last = seen[-1]

    assert seen == asked


async def _begin(talker: Talker, answer: Message, *, max_turns: int = 100) -> Begun:
    begun = await talker.begin(answer.message_id, max_turns=max_turns)
    assert isinstance(begun, Begun)
    return begun


async def _release(talker: Talker, begun: Begun) -> bool:
    return await attempts.release_attempt(
        talker.database,
        message_id=begun.message.message_id,
        attempt=begun.attempt,
        now=after(1),
    )


async def _stop(talker: Talker, message: Message) -> StopResult:
    return await attempts.request_stop(
        talker.database,
        user_id=talker.user_id,
        message_id=message.message_id,
        now=after(1),
    )


async def _stored(talker: Talker, message: Message) -> Message:
    stored = await history.message_by_id(talker.database, message_id=message.message_id)
    assert stored is not None
    return stored
