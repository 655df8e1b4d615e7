"""Sessions belong to one user, are listed by activity, and leave a tombstone."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from app.db import history, sessions, users
from app.db.engine import Database
from app.db.results import SessionState
from app.domain.errors import InvalidCursor, NotFound, SessionExists
from app.domain.messages import Message, Session
from tests.support.conversations import NOON, Talker, after, new_id, told, told_types


@pytest.fixture
async def ada(database: Database) -> Talker:
    return await Talker(database).arrive()


@pytest.fixture
async def eve(database: Database) -> Talker:
    return await Talker(database, user_id="eve").arrive()


async def test_a_session_begins_empty(ada: Talker) -> None:
    created = await ada.create("s-1", title="Mine")

    assert created == Session(
        session_id="s-1",
        title="Mine",
        created_at="2026-01-31T12:00:00.123Z",
        updated_at="2026-01-31T12:00:00.123Z",
    )
    assert await sessions.session(ada.database, user_id="ada", session_id="s-1") == created
    assert await told_types(ada.database) == ["SESSION_STARTED"]


async def test_an_id_is_taken_once(ada: Talker, eve: Talker) -> None:
    await ada.create("s-1")

    with pytest.raises(SessionExists):
        await ada.create("s-1")
    with pytest.raises(NotFound):
        await eve.create("s-1")
    await ada.delete()
    with pytest.raises(SessionExists):
        await ada.create("s-1")


async def test_of_two_that_create_a_session_at_once_one_does(ada: Talker) -> None:
    outcomes = await asyncio.gather(ada.create("s-1"), ada.create("s-1"), return_exceptions=True)

    assert Counter(map(type, outcomes)) == {Session: 1, SessionExists: 1}
    assert await told_types(ada.database) == ["SESSION_STARTED"]


async def test_a_title_is_changed(ada: Talker) -> None:
    await ada.create("s-1", title="Old")

    first = await ada.rename("New 🧵", now=after(1))
    second = await ada.rename("Newer", now=after(2))

    assert (first.session.title, first.pristine) == ("New 🧵", True)
    assert first.session.updated_at == "2026-01-31T12:00:01.123Z"
    # The first one has been written to the log by now.
    assert (second.session.title, second.pristine) == ("Newer", False)
    records = await told(ada.database)
    assert [record["metadata"]["title"] for record in records] == ["Old", "New 🧵", "Newer"]


async def test_a_deleted_session_keeps_nothing_but_its_id(ada: Talker) -> None:
    accepted = await ada.exchange("One?", "1")
    running = await ada.ask("Two?")

    deleted = await ada.delete(now=after(5))

    assert deleted.session.title == ""
    assert deleted.unfinished == running.assistant_message.message_id
    with pytest.raises(NotFound):
        await sessions.session(ada.database, user_id="ada", session_id="s-1")
    assert await _history(ada) == []
    for message in (*accepted[1:3], *running[1:3]):
        found = await history.message_by_id(ada.database, message_id=message.message_id)
        assert found is None
    page = await sessions.sessions(ada.database, user_id="ada", limit=10, cursor=None)
    assert page.items == []
    assert (await told_types(ada.database))[-1] == "SESSION_DELETED"


async def test_a_session_is_deleted_once(ada: Talker) -> None:
    await ada.create("s-1")
    assert (await ada.delete()).unfinished is None

    with pytest.raises(NotFound):
        await ada.delete()
    with pytest.raises(NotFound):
        await ada.rename("Too late")


async def test_nobody_else_reads_renames_or_deletes_a_session(ada: Talker, eve: Talker) -> None:
    accepted = await ada.ask()

    with pytest.raises(NotFound):
        await sessions.session(eve.database, user_id="eve", session_id="s-1")
    with pytest.raises(NotFound):
        await eve.rename("Eve's")
    with pytest.raises(NotFound):
        await eve.delete()
    with pytest.raises(NotFound):
        await history.message(
            eve.database, user_id="eve", message_id=accepted.user_message.message_id
        )
    mine = await history.message(
        ada.database, user_id="ada", message_id=accepted.user_message.message_id
    )
    assert mine == accepted.user_message


async def test_a_tombstone_is_told_from_what_never_was(ada: Talker, eve: Talker) -> None:
    await ada.create("s-1")
    assert await _state(ada) is SessionState.OWNED
    await ada.delete()
    assert await _state(ada) is SessionState.DELETED

    with pytest.raises(NotFound):
        await _state(eve)
    with pytest.raises(NotFound):
        await _state(Talker(ada.database, session_id="s-2"))


async def test_the_newest_activity_comes_first(ada: Talker, eve: Talker) -> None:
    for number in range(3):
        await ada.create(f"s-{number}", now=after(number))
    await eve.create("eves")
    await ada.ask(session_id="s-0", now=after(10))

    page = await sessions.sessions(ada.database, user_id="ada", limit=10, cursor=None)

    assert [item.session_id for item in page.items] == ["s-0", "s-2", "s-1"]
    assert page.next_cursor is None


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
async def test_pages_hold_each_session_once(ada: Talker, limit: int) -> None:
    # Apart by a microsecond, and twice by nothing: only the id tells those apart.
    moments = [0.0, 0.000001, 0.000001, 0.000002, 0.001, 0.001]
    for number, moment in enumerate(moments):
        await ada.create(f"s-{number}", now=after(moment))

    seen: list[str] = []
    cursor = None
    for _ in moments:
        page = await sessions.sessions(ada.database, user_id="ada", limit=limit, cursor=cursor)
        seen += [item.session_id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == ["s-5", "s-4", "s-3", "s-2", "s-1", "s-0"]


async def test_a_made_up_cursor_is_refused(ada: Talker) -> None:
    with pytest.raises(InvalidCursor):
        await sessions.sessions(ada.database, user_id="ada", limit=10, cursor="made-up")


async def test_messages_are_read_backwards_page_by_page(ada: Talker) -> None:
    for number in range(3):
        await ada.exchange(f"{number}?", f"{number}")

    newest = await _history(ada, limit=4)
    older = await _history(ada, limit=4, before=newest[0].message_id)

    assert [message.content for message in newest] == ["1?", "1", "2?", "2"]
    assert [message.content for message in older] == ["0?", "0"]
    assert await _history(ada, limit=4, before=older[0].message_id) == []


async def test_messages_are_not_read_before_what_is_not_there(ada: Talker) -> None:
    await ada.ask()
    elsewhere = await ada.ask(session_id="s-2")

    for before in ("no-such-message", elsewhere.user_message.message_id):
        with pytest.raises(InvalidCursor):
            await _history(ada, before=before)


async def test_a_user_is_made_known_once(database: Database) -> None:
    await asyncio.gather(
        *(
            users.ensure_user(database, user_id="dev", name="dev", now=after(number))
            for number in range(10)
        )
    )

    dev = await users.user_by_name(database, name="dev")
    assert dev is not None
    assert (dev.user_id, dev.disabled_at) == ("dev", None)
    assert dev.created_at.microsecond == NOON.microsecond


async def test_a_name_stays_with_its_first_user(database: Database) -> None:
    await users.ensure_user(database, user_id="first", name="ada", now=NOON)
    await users.ensure_user(database, user_id="second", name="ada", now=NOON)

    ada = await users.user_by_name(database, name="ada")
    assert ada is not None
    assert ada.user_id == "first"
    # The second one is known all the same: it may own sessions.
    await Talker(database, user_id="second").create("s-1")


async def test_a_user_is_created_by_name_once(database: Database) -> None:
    assert await users.user_by_name(database, name="ada") is None

    created = await asyncio.gather(
        *(users.create_user(database, user_id=new_id(), name="ada", now=NOON) for _ in "12345")
    )

    assert len(set(created)) == 1
    assert await users.user_by_name(database, name="ada") == created[0]
    with pytest.raises(ValueError, match="belongs to another name"):
        await users.create_user(database, user_id=created[0].user_id, name="eve", now=NOON)


async def _history(talker: Talker, *, limit: int = 100, before: str | None = None) -> list[Message]:
    return await history.messages(
        talker.database, session_id=talker.session_id, limit=limit, before=before
    )


async def _state(talker: Talker) -> SessionState:
    return await sessions.session_state(
        talker.database, user_id=talker.user_id, session_id=talker.session_id
    )
