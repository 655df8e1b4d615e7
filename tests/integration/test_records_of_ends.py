"""Every end of an answer is on record the same way, whoever wrote it: the end, and its text."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import structlog

from app.chat.deletion import Deletion
from app.chat.settling import Settling
from app.composition import new_id, utc_now
from app.db import attempts
from app.db.engine import Database
from app.db.results import Begun
from app.domain.caller import Caller
from app.domain.messages import AnswerError, Message, Status
from app.events.envelope import EventBuilder
from app.streams.memory_log import MemorySessionLog
from app.streams.session_log import Claimed
from tests.support.conversations import Talker, told

_TEXT = "two words"
_RECORDS = ["STREAM_CANCELLED", "STREAM_FAILED", "CHAT_MESSAGE"]


class _Begun:
    """An answer whose worker is gone after two words, and what ends it without one."""

    def __init__(self, database: Database) -> None:
        epochs = itertools.count(1000)
        self.database = database
        self.log = MemorySessionLog(
            max_entries=1000, clock=time.monotonic, epoch_clock=lambda: next(epochs)
        )
        self.events = EventBuilder("node", new_id)
        self.settling = Settling(
            database=database,
            log=self.log,
            events=self.events,
            node_id="node",
            lease_ms=60_000,
            clock=utc_now,
        )
        self.question_id = ""

    async def begin(self) -> Message:
        talker = await Talker(self.database).arrive()
        accepted = await talker.ask()
        self.question_id = accepted.user_message.message_id
        answer = accepted.assistant_message
        await self.log.submit(answer.session_id, answer.message_id, 0, [], pristine=True)
        claimed = await self.log.claim(answer.session_id, answer.message_id, "worker", 60_000)
        assert isinstance(claimed, Claimed)
        begun = await talker.begin(answer.message_id)
        assert isinstance(begun, Begun)
        await self.log.start(
            claimed.lease,
            answer.message_id,
            begun.attempt,
            kept=_TEXT,
            entries=[],
            entries_if_unknown=[],
        )
        await self.log.release(claimed.lease)
        return begun.message

    async def recorded(self, message_id: str) -> list[dict[str, Any]]:
        return [
            record
            for record in await told(self.database)
            if record["messageId"] == message_id and record["eventType"] in _RECORDS
        ]


@pytest.fixture
async def begun(database: Database) -> _Begun:
    return _Begun(database)


async def test_a_stop_that_no_worker_obeys(begun: _Begun) -> None:
    answer = await begun.begin()
    stop = await attempts.request_stop(
        begun.database, user_id="ada", message_id=answer.message_id, now=utc_now()
    )
    assert await begun.settling.settle_unowned(stop.message, "ada", stop.in_reply_to)
    await _check(begun, answer, "STREAM_CANCELLED", Status.CANCELLED)


async def test_an_answer_that_is_given_up(begun: _Begun) -> None:
    answer = await begun.begin()
    claimed = await begun.log.claim(answer.session_id, answer.message_id, "worker", 60_000)
    assert isinstance(claimed, Claimed)
    assert await begun.settling.settle(
        claimed,
        answer,
        Status.FAILED,
        AnswerError("attempts_exhausted", "Tried three times"),
        user_id="ada",
        in_reply_to=begun.question_id,
    )
    await _check(begun, answer, "STREAM_FAILED", Status.FAILED)


async def test_an_answer_whose_session_is_deleted(begun: _Begun) -> None:
    answer = await begun.begin()
    deletion = Deletion(
        database=begun.database,
        log=begun.log,
        events=begun.events,
        undo_seconds=60,
        clock=utc_now,
        logger=structlog.get_logger(),
    )
    await deletion.put_away(Caller("ada", "Ada"), answer.session_id)
    await _check(begun, answer, "STREAM_CANCELLED", Status.CANCELLED)


async def _check(begun: _Begun, answer: Message, end: str, status: Status) -> None:
    ended, said = await begun.recorded(answer.message_id)
    assert (ended["eventType"], ended["contentLength"]) == (end, len(_TEXT))
    assert (said["eventType"], said["role"], said["content"]) == (
        "CHAT_MESSAGE",
        "assistant",
        _TEXT,
    )
    assert said["userId"] == "ada"
    assert said["metadata"]["status"] == status
    assert said["metadata"]["inReplyTo"] == begun.question_id
