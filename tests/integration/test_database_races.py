"""Two that come at the same instant to one answer: one of them decides, and both know it."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import attempts, history
from app.db.engine import Database
from app.db.locking import lock_session
from app.db.results import AlreadyFinal, Begun
from app.domain.messages import Message, Status
from tests.support.conversations import Talker, after, told_types
from tests.support.databases import NewDatabase


@pytest.fixture
async def ada(database: Database) -> Talker:
    return await Talker(database).arrive()


async def test_beginning_and_finishing_at_once_leave_one_voice(
    ada: Talker, other_node: Database
) -> None:
    """A worker that was thought dead finishes while another takes over."""
    answer = (await ada.ask()).assistant_message
    await _begin(ada, answer)

    finished, begun = await asyncio.gather(
        ada.finish(answer.message_id, 1, "Fine."),
        ada.begin(answer.message_id, database=other_node),
    )

    if finished is None:
        assert isinstance(begun, Begun)
        assert begun.attempt == 2
        assert (await _stored(ada, answer)).status is Status.STREAMING
    else:
        assert isinstance(begun, AlreadyFinal)
        assert begun.message == finished == await _stored(ada, answer)


async def test_of_two_that_begin_at_once_each_gets_its_own_number(
    ada: Talker, other_node: Database
) -> None:
    answer = (await ada.ask()).assistant_message

    begun = await asyncio.gather(
        ada.begin(answer.message_id), ada.begin(answer.message_id, database=other_node)
    )

    assert sorted(one.attempt for one in begun if isinstance(one, Begun)) == [1, 2]


@pytest.mark.postgresql
async def test_what_changed_while_waiting_for_the_session_is_seen(
    new_database: NewDatabase,
) -> None:
    """Both have found the message before either may change it."""
    database = Database(new_database("postgresql"))
    ada = await Talker(database).arrive()
    answer = (await ada.ask()).assistant_message

    async with database.write() as connection:
        await lock_session(connection, answer.session_id)
        beginning = [asyncio.create_task(ada.begin(answer.message_id)) for _ in range(2)]
        await _until_waiting_for_locks(connection, 2)
    begun = await asyncio.gather(*beginning)
    await database.close()

    assert sorted(one.attempt for one in begun if isinstance(one, Begun)) == [1, 2]


async def test_of_two_that_finish_at_once_one_decides(ada: Talker, other_node: Database) -> None:
    answer = (await ada.ask()).assistant_message
    await _begin(ada, answer)

    finished = await asyncio.gather(
        ada.finish(answer.message_id, 1, "Complete."),
        ada.finish(answer.message_id, 1, "Comp", status=Status.CANCELLED, database=other_node),
    )

    (winner,) = [message for message in finished if message is not None]
    assert await _stored(ada, answer) == winner
    assert len([kind for kind in await told_types(ada.database) if "STREAM_C" in kind]) == 1


async def test_a_stop_and_the_end_at_once_agree(ada: Talker, other_node: Database) -> None:
    answer = (await ada.ask()).assistant_message
    await _begin(ada, answer)

    finished, stop = await asyncio.gather(
        ada.finish(answer.message_id, 1, "Fine."),
        attempts.request_stop(
            other_node, user_id="ada", message_id=answer.message_id, now=after(1)
        ),
    )

    assert finished is not None
    assert stop.accepted == (not stop.message.is_complete)
    assert await _stored(ada, answer) == finished


async def test_the_end_of_an_answer_and_of_its_session_at_once_agree(
    ada: Talker, other_node: Database
) -> None:
    answer = (await ada.ask()).assistant_message
    await _begin(ada, answer)

    finished, deleted = await asyncio.gather(
        ada.finish(answer.message_id, 1, "Fine.", database=other_node), ada.delete()
    )

    assert (deleted.unfinished is None) == (finished is not None)
    assert await history.message_by_id(ada.database, message_id=answer.message_id) is None
    ended = [kind for kind in await told_types(ada.database) if kind == "STREAM_COMPLETED"]
    assert len(ended) == (1 if finished else 0)


async def _until_waiting_for_locks(connection: AsyncConnection, expected: int) -> None:
    query = text("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
    deadline = time.monotonic() + 10
    while (waiting := (await connection.execute(query)).scalar_one()) < expected:
        assert time.monotonic() < deadline, f"{waiting} of {expected} wait for a lock"
        await asyncio.sleep(0.01)


async def _begin(talker: Talker, answer: Message) -> Begun:
    begun = await talker.begin(answer.message_id)
    assert isinstance(begun, Begun)
    return begun


async def _stored(talker: Talker, message: Message) -> Message:
    stored = await history.message_by_id(talker.database, message_id=message.message_id)
    assert stored is not None
    return stored
