"""Between two turns the server was restarted, and may have lost the end of the one before.

A client that was away all the time has seen what is lost. Were its positions given out again, it
would be served from the middle of a turn that it does not know.
"""

from __future__ import annotations

import pytest

from app.domain.frames import HistoryReason
from app.domain.position import BEFORE_ALL, Position
from app.domain.resume import judge
from app.streams.session_log import AppendOutcome
from tests.support.log_steps import NEXT_ANSWER, SESSION, Steps, contents, question, started
from tests.support.session_logs import LogUnderTest


@pytest.fixture
def steps(under_test: LogUnderTest) -> Steps:
    return Steps(under_test)


async def _judged(steps: Steps, position: Position) -> HistoryReason | None:
    held = await steps.log.read(SESSION, position, 100)
    return judge(position, held.first, held.last, original=held.original)


async def test_the_next_question_begins_a_new_epoch(steps: Steps) -> None:
    await steps.answer("a-1", "one", "two", pristine=True)
    [seen] = await steps.log.tails([SESSION])
    await steps.under_test.restart(SESSION)
    asked = await steps.ask(NEXT_ANSWER)
    assert asked.epoch > seen.epoch
    assert asked.seq == 0
    lease = await steps.begin(NEXT_ANSWER)
    texts = [f"{number} " for number in range(20)]
    assert await steps.write(lease, 0, *texts, message_id=NEXT_ANSWER) is AppendOutcome.OK
    for position in (BEFORE_ALL, seen, seen.plus(1), seen.plus(10)):
        assert await _judged(steps, position) is HistoryReason.EPOCH
    assert await _judged(steps, asked) is None
    assert await steps.finish(lease, NEXT_ANSWER) is AppendOutcome.OK
    assert (await steps.log.snapshot(SESSION)).active is None
    # One restart, one new epoch.
    assert (await steps.ask("a-3")).epoch == asked.epoch


async def test_a_worker_that_is_faster_than_the_question_does_so_too(steps: Steps) -> None:
    await steps.answer("a-1", "one", "two")
    [seen] = await steps.log.tails([SESSION])
    await steps.under_test.restart(SESSION)
    await steps.begin(NEXT_ANSWER)
    held = await steps.log.read(SESSION, BEFORE_ALL, 100)
    assert contents(held) == [question(NEXT_ANSWER), started(NEXT_ANSWER)]
    assert held.last.epoch > seen.epoch


async def test_the_same_question_again_does_so_with_its_attempt(steps: Steps) -> None:
    """A regeneration appends nothing when it is submitted; what was restarted is remembered."""
    await steps.answer("a-1", "one", "two")
    [seen] = await steps.log.tails([SESSION])
    await steps.under_test.restart(SESSION)
    assert await steps.ask("a-1", attempt=2) == seen
    await steps.begin("a-1", attempt=3)
    held = await steps.log.read(SESSION, BEFORE_ALL, 100)
    assert contents(held) == [started("a-1", 3)]
    assert held.last.epoch > seen.epoch


async def test_the_end_of_an_answer_is_not_the_end_of_its_epoch(steps: Steps) -> None:
    """Nothing was restarted: turns follow on each other."""
    await steps.answer("a-1", "one", pristine=True)
    [seen] = await steps.log.tails([SESSION])
    assert await steps.ask(NEXT_ANSWER) == seen.plus(1)
    assert await _judged(steps, seen) is None
