"""What was put away is as deleted to everybody, and comes back whole until it is purged."""

from __future__ import annotations

from datetime import datetime

import pytest

from app.db import history, search, sessions
from app.db.engine import Database
from app.db.results import AlreadyFinal, Gone, SessionDeleted, SessionState, TextSoFar
from app.domain.errors import NotFound, SessionExists
from app.domain.messages import Message, Session, Status
from app.domain.outbox import OutboxEvent
from tests.support.conversations import NOON, Talker, after, never, told_types
from workers.generation.purge import purge

_LATER = after(30)


@pytest.fixture
async def ada(database: Database) -> Talker:
    return await Talker(database).arrive()


async def test_it_is_deleted_to_everybody(ada: Talker) -> None:
    question, answer = (await ada.exchange("One?", "1"))[1:3]

    gone = await _put_away(ada)

    assert (gone.session.title, gone.unfinished, gone.cut) == ("", None, None)
    for read in (sessions.session, history.version):
        with pytest.raises(NotFound):
            await read(ada.database, user_id="ada", session_id="s-1")
    for message in (question, answer):
        with pytest.raises(NotFound):
            await history.message(ada.database, user_id="ada", message_id=message.message_id)
        with pytest.raises(NotFound):
            await ada.ask_again(message.message_id)
    state = await sessions.session_state(ada.database, user_id="ada", session_id="s-1")
    assert state is SessionState.DELETED
    listed = await sessions.sessions(ada.database, user_id="ada", limit=10, cursor=None)
    assert listed.items == []
    assert await search.search(ada.database, user_id="ada", wanted="One", limit=10) == []
    with pytest.raises(NotFound):
        await ada.ask("Two?")
    with pytest.raises(NotFound):
        await ada.rename("Mine")
    with pytest.raises(NotFound):
        await ada.delete()
    with pytest.raises(NotFound):
        await _put_away(ada)
    with pytest.raises(SessionExists):
        await ada.create("s-1")
    assert (await told_types(ada.database))[-1] == "SESSION_DELETED"


async def test_it_comes_back_whole(ada: Talker) -> None:
    said = list((await ada.exchange("One?", "1"))[1:3])
    before = await history.version(ada.database, user_id="ada", session_id="s-1")
    await _put_away(ada)

    restored = await _restore(ada, now=after(29))

    assert restored.title == "A title"
    assert restored.updated_at == "2026-01-31T12:00:29.123Z"
    assert await sessions.session(ada.database, user_id="ada", session_id="s-1") == restored
    assert [message.message_id for message in await _history(ada)] == [
        message.message_id for message in said
    ]
    # Copies of what it was before the deletion are not taken for what it is now.
    now = await history.version(ada.database, user_id="ada", session_id="s-1")
    assert now.revision > before.revision
    # Its log went with the deletion: what begins now is not its first.
    assert not (await ada.ask("Two?", now=after(31))).pristine
    assert "SESSION_RESTORED" in await told_types(ada.database)


async def test_it_comes_back_once_and_in_time_and_to_its_owner_only(
    ada: Talker, database: Database
) -> None:
    eve = await Talker(database, user_id="eve").arrive()
    await ada.create("s-1")
    with pytest.raises(NotFound):
        await _restore(ada)

    await _put_away(ada)
    assert await _restorable(ada, after(29)) is not None
    assert await _restorable(eve, after(29)) is None
    assert await _restorable(ada, _LATER) is None
    with pytest.raises(NotFound):
        await _restore(eve)
    with pytest.raises(NotFound):
        await _restore(ada, now=_LATER)
    await _restore(ada)
    assert await _restorable(ada, after(29)) is None
    with pytest.raises(NotFound):
        await _restore(ada)


async def test_what_was_deleted_for_good_does_not_come_back(ada: Talker) -> None:
    await ada.exchange("One?", "1")
    await ada.delete()

    assert await _restorable(ada, NOON) is None
    with pytest.raises(NotFound):
        await _restore(ada)


async def test_an_answer_that_was_cut_ends_with_its_text_so_far(ada: Talker) -> None:
    asked = await ada.ask("Count!")
    answer_id = asked.assistant_message.message_id
    await ada.begin(answer_id)

    gone = await _put_away(ada, TextSoFar(answer_id, "1 2 3"))

    assert gone.unfinished == answer_id
    assert gone.cut is not None
    assert (gone.cut.status, gone.cut.content) == (Status.CANCELLED, "1 2 3")
    assert isinstance(await ada.begin(answer_id), Gone)
    assert await ada.finish(answer_id, 1, "1 2 3 4", events=never) is None

    await _restore(ada)

    # Its worker comes late: what is final stays as it is.
    assert await ada.finish(answer_id, 1, "1 2 3 4", events=never) is None
    assert isinstance(await ada.begin(answer_id), AlreadyFinal)
    assert (await _history(ada))[-1] == gone.cut
    await ada.ask("And now?")


async def test_the_text_of_another_answer_is_not_taken_for_its_own(ada: Talker) -> None:
    asked = await ada.ask("Count!")

    gone = await _put_away(ada, TextSoFar("another", "1 2 3"))

    assert gone.cut is not None
    assert gone.cut.message_id == asked.assistant_message.message_id
    assert gone.cut.content == ""


async def test_what_is_due_is_purged_for_good(ada: Talker) -> None:
    said = (await ada.exchange("One?", "1"))[1:3]
    await _put_away(ada)

    assert await purge(ada.database, after(29)) == 0
    assert await history.message_by_id(ada.database, message_id=said[0].message_id) is not None
    assert await purge(ada.database, _LATER) == 1

    for message in said:
        assert await history.message_by_id(ada.database, message_id=message.message_id) is None
    with pytest.raises(NotFound):
        await _restore(ada)
    state = await sessions.session_state(ada.database, user_id="ada", session_id="s-1")
    assert state is SessionState.DELETED
    assert await purge(ada.database, _LATER) == 0


async def test_what_came_back_is_not_purged(ada: Talker) -> None:
    await ada.exchange("One?", "1")
    await _put_away(ada)
    due = await sessions.purge_due(ada.database, now=_LATER, limit=10)
    await _restore(ada)

    # A worker that had looked before it was restored.
    assert due == ["s-1"]
    assert not await sessions.purge_session(ada.database, session_id="s-1", now=_LATER)
    assert len(await _history(ada)) == 2


async def test_any_number_is_purged(ada: Talker) -> None:
    for number in range(101):
        await ada.create(f"s-{number}")
        await _put_away(ada, session_id=f"s-{number}")

    assert await purge(ada.database, _LATER) == 101


async def _put_away(
    talker: Talker, text_so_far: TextSoFar | None = None, *, session_id: str = "s-1"
) -> SessionDeleted:
    def events(gone: SessionDeleted) -> list[OutboxEvent]:
        return [talker.events.session_deleted(gone.session, user_id=talker.user_id, now=NOON)]

    return await sessions.put_away_session(
        talker.database,
        user_id=talker.user_id,
        session_id=session_id,
        text_so_far=text_so_far,
        purge_at=_LATER,
        now=NOON,
        events=events,
    )


async def _restore(talker: Talker, *, now: datetime = NOON) -> Session:
    return await sessions.restore_session(
        talker.database,
        user_id=talker.user_id,
        session_id="s-1",
        now=now,
        events=lambda session: [
            talker.events.session_restored(session, user_id=talker.user_id, now=now)
        ],
    )


async def _restorable(talker: Talker, now: datetime) -> Session | None:
    return await sessions.restorable_session(
        talker.database, user_id=talker.user_id, session_id="s-1", now=now
    )


async def _history(talker: Talker) -> list[Message]:
    return await history.messages(talker.database, session_id="s-1", limit=100, before=None)
