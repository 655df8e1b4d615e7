"""How many statements a question costs; a bound, so that one more is a decision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine, event

from app.db.engine import Database
from tests.support.conversations import Talker
from tests.support.web import serving


@contextmanager
def statements() -> Iterator[list[str]]:
    """Gather what is sent to databases within the block, but for what begins a transaction."""
    sent: list[str] = []

    def hear(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            sent.append(statement)

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", hear)


@pytest.fixture
async def ada(database: Database) -> Talker:
    return await Talker(database).arrive()


async def test_a_question_and_its_answer_take_fourteen_statements(ada: Talker) -> None:
    with statements() as asking:
        answer = (await ada.ask(key="k-1")).assistant_message.message_id
    with statements() as beginning:
        begun = cast("Any", await ada.begin(answer))
    with statements() as finishing:
        assert await ada.finish(answer, begun.attempt) is not None
    assert (len(asking), len(beginning), len(finishing)) == (4, 5, 5), [
        *asking,
        *beginning,
        *finishing,
    ]


async def test_a_further_question_takes_five_statements(ada: Talker) -> None:
    await ada.exchange("One?", "1")
    with statements() as asking:
        await ada.ask("Two?", key="k-2")
    assert len(asking) == 5, asking


async def test_a_new_try_takes_six_statements(ada: Talker) -> None:
    answer = (await ada.exchange("One?", "1")).assistant_message.message_id
    with statements() as asking:
        await ada.ask_again(answer)
    assert len(asking) == 6, asking


async def test_the_number_does_not_grow_with_the_conversation(ada: Talker) -> None:
    counts = []
    for number in range(5):
        with statements() as sent:
            await ada.exchange(f"{number}?", str(number))
        counts.append(len(sent))
    assert counts == [14, 15, 15, 15, 15]


async def test_a_process_looks_once_whether_a_user_is_known(tmp_path: Path) -> None:
    async with serving(tmp_path, worker=False) as node, node.client_of("ada") as client:
        counts = []
        for _ in range(3):
            with statements() as sent:
                asked = await client.post("/api/chat", json={"message": "Who am I?"})
            assert asked.status_code == 202
            counts.append(sum("users" in statement.split() for statement in sent))
            assert len(sent) <= counts[-1] + 4, sent
        assert counts == [2, 0, 0]
        assert node.rows()["users"] == 1
