"""A question is accepted once, whole, and by one of those who ask at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from app.db import attempts, history, sessions
from app.db.engine import Database
from app.db.outbox import outbox_depth
from app.db.results import Accepted, Begun
from app.domain.errors import GenerationInProgress, NotFound, NotRegenerable
from app.domain.messages import AnswerError, Message, Role, Status, Usage
from app.domain.outbox import OutboxEvent
from tests.support.conversations import Talker, after, never, no_events, told, told_types

# Two code points that Unicode calls equal, one outside the BMP, one that is two, both line ends,
# white space at either end: what an encoding or a collation on the way may change.
TEXTS = [
    "e\u0301 is not \u00e9",
    "🧵 and 👩🏽‍💻 and \U0010fffd",
    "one\r\ntwo\rthree\nfour",
    " \t kept \u00a0\u2028",
    "\u202eright to left\u202c, \ufeff and \ufffd",
]


@pytest.fixture
async def ada(database: Database) -> Talker:
    return await Talker(database).arrive()


async def test_a_question_and_its_answer_are_stored_together(ada: Talker) -> None:
    accepted = await ada.ask("How are you?", now=after(1))

    assert (accepted.created_session, accepted.pristine, accepted.repeated) == (True, True, False)
    assert accepted.session.title == "A title"
    question, answer = accepted.user_message, accepted.assistant_message
    assert (question.role, question.content) == (Role.USER, "How are you?")
    assert (question.status, question.is_complete) == (Status.COMPLETE, True)
    assert question.created_at == question.completed_at == "2026-01-31T12:00:01.123Z"
    assert (answer.role, answer.content, answer.model) == (Role.ASSISTANT, "", "demo")
    assert (answer.status, answer.is_complete, answer.attempt) == (Status.QUEUED, False, 0)
    assert answer.completed_at is None
    assert await _history(ada) == [question, answer]


async def test_the_events_are_written_with_the_question(ada: Talker) -> None:
    accepted = await ada.ask("How are you?")

    assert await told_types(ada.database) == ["SESSION_STARTED", "CHAT_MESSAGE"]
    record = (await told(ada.database))[1]
    assert record["messageId"] == accepted.user_message.message_id
    assert record["content"] == "How are you?"
    assert await outbox_depth(ada.database) == 2


async def test_without_its_events_a_question_is_not_stored(ada: Talker) -> None:
    def broken(_accepted: Accepted) -> Sequence[OutboxEvent]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ada.ask(events=broken)

    with pytest.raises(NotFound):
        await sessions.session(ada.database, user_id="ada", session_id="s-1")
    assert await outbox_depth(ada.database) == 0


@pytest.mark.parametrize("text", TEXTS)
async def test_text_is_kept_code_point_by_code_point(ada: Talker, text: str) -> None:
    accepted = await ada.exchange(text, text)

    question, answer = await _history(ada)
    assert question.content == accepted.user_message.content == text
    assert answer.content == text


async def test_a_session_has_one_answer_at_a_time(ada: Talker) -> None:
    accepted = await ada.ask()

    with pytest.raises(GenerationInProgress) as refused:
        await ada.ask("And now?", events=never)

    assert refused.value.extra == {"message_id": accepted.assistant_message.message_id}
    assert len(await _history(ada)) == 2


async def test_a_second_question_follows_the_first_answer(ada: Talker) -> None:
    await ada.exchange("One?", "1")
    accepted = await ada.ask("Two?", now=after(5))

    assert (accepted.created_session, accepted.pristine) == (False, False)
    assert accepted.session.updated_at == "2026-01-31T12:00:05.123Z"
    assert [said.content for said in await _history(ada)] == ["One?", "1", "Two?", ""]


async def test_a_title_is_kept_and_only_an_empty_one_filled_in(ada: Talker) -> None:
    await ada.create("s-1", title="Mine")
    await ada.create("s-2")

    named, unnamed = await ada.ask(), await ada.ask(session_id="s-2")

    assert (named.session.title, named.created_session, named.pristine) == ("Mine", False, True)
    assert unnamed.session.title == "A title"


async def test_another_users_session_cannot_be_told_from_none(ada: Talker) -> None:
    await ada.ask()
    eve = await Talker(ada.database, user_id="eve").arrive()

    with pytest.raises(NotFound):
        await eve.ask(events=never)


async def test_nothing_is_asked_in_a_deleted_session(ada: Talker) -> None:
    await ada.exchange("One?", "1")
    await ada.delete()

    with pytest.raises(NotFound):
        await ada.ask(events=never)


async def test_a_question_sent_again_changes_nothing(ada: Talker) -> None:
    first = await ada.ask(key="k-1")

    again = await ada.ask("Something else", key="k-1", now=after(9), events=never)

    assert (again.repeated, again.created_session, again.pristine) == (True, False, False)
    assert again.user_message == first.user_message
    assert again.assistant_message == first.assistant_message
    assert again.session == first.session


async def test_a_question_sent_again_shows_how_far_its_answer_is(ada: Talker) -> None:
    first = await ada.ask(key="k-1")
    begun = await ada.begin(first.assistant_message.message_id)
    assert isinstance(begun, Begun)
    await ada.finish(begun.message.message_id, begun.attempt, "Fine.")
    await ada.exchange("Next?", "Yes.")

    again = await ada.ask(key="k-1", events=never)

    assert again.assistant_message.content == "Fine."
    assert again.assistant_message.status is Status.COMPLETE


async def test_a_key_counts_in_its_session_only(ada: Talker) -> None:
    await ada.ask(key="k-1")

    assert not (await ada.ask(key="k-1", session_id="s-2")).repeated


async def test_of_two_questions_at_once_one_is_accepted(ada: Talker, other_node: Database) -> None:
    await ada.exchange("Begun?", "Yes.")

    outcomes = await asyncio.gather(
        *(ada.ask(database=node) for node in (ada.database, other_node)),
        return_exceptions=True,
    )

    assert Counter(map(type, outcomes)) == {Accepted: 1, GenerationInProgress: 1}
    assert len(await _history(ada)) == 4


async def test_of_two_that_create_a_session_at_once_one_does(
    ada: Talker, other_node: Database
) -> None:
    outcomes = await asyncio.gather(
        *(ada.ask(database=node) for node in (ada.database, other_node)),
        return_exceptions=True,
    )

    assert Counter(map(type, outcomes)) == {Accepted: 1, GenerationInProgress: 1}
    assert await told_types(ada.database) == ["SESSION_STARTED", "CHAT_MESSAGE"]


async def test_of_two_users_who_choose_the_same_id_one_gets_it(
    ada: Talker, other_node: Database
) -> None:
    eve = await Talker(other_node, user_id="eve").arrive()

    outcomes = await asyncio.gather(ada.ask(), eve.ask(), return_exceptions=True)

    assert Counter(map(type, outcomes)) == {Accepted: 1, NotFound: 1}


async def test_of_twenty_that_send_one_question_all_get_the_same_answer(
    ada: Talker, other_node: Database
) -> None:
    outcomes = await asyncio.gather(
        *(
            ada.ask(key="k-1", database=other_node if number % 2 else ada.database)
            for number in range(20)
        )
    )

    assert Counter(accepted.repeated for accepted in outcomes) == {False: 1, True: 19}
    assert len({accepted.assistant_message.message_id for accepted in outcomes}) == 1
    assert len(await _history(ada)) == 2
    assert await told_types(ada.database) == ["SESSION_STARTED", "CHAT_MESSAGE"]


@pytest.mark.parametrize("named", ["user_message", "assistant_message"])
async def test_an_answer_is_generated_again_under_its_own_id(ada: Talker, named: str) -> None:
    accepted = await ada.ask()
    begun = await ada.begin(accepted.assistant_message.message_id)
    assert isinstance(begun, Begun)
    await attempts.request_stop(
        ada.database, user_id="ada", message_id=begun.message.message_id, now=after(1)
    )
    await ada.finish(
        begun.message.message_id,
        begun.attempt,
        "Half",
        status=Status.FAILED,
        error=AnswerError("model_error", "It broke."),
        usage=Usage(3, 4),
    )

    again = await ada.ask_again(getattr(accepted, named).message_id, now=after(7), model="other")

    answer = again.assistant_message
    assert answer.message_id == accepted.assistant_message.message_id
    assert (answer.status, answer.content, answer.model) == (Status.QUEUED, "", "other")
    assert (answer.error, answer.usage, answer.completed_at) == (None, None, None)
    assert again.user_message == accepted.user_message
    assert (again.pristine, again.created_session, again.repeated) == (False, False, False)
    assert again.session.updated_at == "2026-01-31T12:00:07.123Z"
    assert isinstance(await ada.begin(answer.message_id), Begun)


async def test_an_answer_is_generated_again_by_its_own_model_unless_told(ada: Talker) -> None:
    accepted = await ada.exchange("One?", "1")

    again = await ada.ask_again(accepted.assistant_message.message_id, model=None)

    assert again.assistant_message.model == "demo"


async def test_a_worker_of_the_answer_before_cannot_finish_the_one_generated_again(
    ada: Talker,
) -> None:
    accepted = await ada.ask()
    answer_id = accepted.assistant_message.message_id
    begun = await ada.begin(answer_id)
    assert isinstance(begun, Begun)
    # Somebody else settled it while its worker was paused.
    await ada.finish(answer_id, begun.attempt, "Hal", status=Status.CANCELLED)
    await ada.ask_again(answer_id)

    late = await ada.finish(answer_id, begun.attempt, "Half of the old one", events=never)

    assert late is None
    assert (await _history(ada))[-1].status is Status.QUEUED


async def test_only_the_latest_answer_is_generated_again(ada: Talker) -> None:
    first = await ada.exchange("One?", "1")
    await ada.exchange("Two?", "2")

    for message in (first.user_message, first.assistant_message):
        with pytest.raises(NotRegenerable):
            await ada.ask_again(message.message_id)


async def test_an_answer_that_is_being_generated_is_not_generated_again(ada: Talker) -> None:
    accepted = await ada.ask()

    with pytest.raises(GenerationInProgress) as refused:
        await ada.ask_again(accepted.assistant_message.message_id)

    assert refused.value.extra == {"message_id": accepted.assistant_message.message_id}


async def test_nobody_else_has_an_answer_generated_again(ada: Talker) -> None:
    accepted = await ada.exchange("One?", "1")
    eve = await Talker(ada.database, user_id="eve").arrive()

    for message_id in (accepted.assistant_message.message_id, "no-such-message"):
        with pytest.raises(NotFound):
            await eve.ask_again(message_id)


async def test_of_two_that_generate_again_at_once_one_does(ada: Talker) -> None:
    accepted = await ada.exchange("One?", "1")
    message_id = accepted.assistant_message.message_id

    outcomes = await asyncio.gather(
        ada.ask_again(message_id), ada.ask_again(message_id), return_exceptions=True
    )

    assert Counter(map(type, outcomes)) == {Accepted: 1, GenerationInProgress: 1}


async def test_a_question_without_events_is_accepted(ada: Talker) -> None:
    await ada.ask(events=no_events)

    assert await told(ada.database) == []


async def _history(talker: Talker) -> list[Message]:
    return await history.messages(
        talker.database, session_id=talker.session_id, limit=100, before=None
    )
