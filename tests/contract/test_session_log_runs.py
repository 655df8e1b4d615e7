"""Between two turns the server was restarted, and may have lost the end of the one before.

A client that was away all the time has seen what is lost. Were its positions given out again, it
would be served from the middle of a turn that it does not know.
"""

from __future__ import annotations

import pytest

from app.domain.events import NewEntry
from app.domain.frames import HistoryReason
from app.domain.position import BEFORE_ALL, Position
from app.domain.resume import judge
from app.streams.session_log import AppendOutcome
from tests.support.log_steps import NEXT_ANSWER, SESSION, Steps, contents, question, started
from tests.support.scribe import known
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


async def test_a_title_after_a_restart_begins_a_new_epoch(steps: Steps) -> None:
    """Whoever has seen what was lost must not take the title for what stood at its position."""
    await steps.answer("a-1", "one", pristine=True)
    [seen] = await steps.log.tails([SESSION])
    await steps.under_test.restart(SESSION)
    title = await steps.log.record(SESSION, [NewEntry("session", b"{}")], pristine=False)
    assert (title.epoch > seen.epoch, title.seq) == (True, 0)
    assert await _judged(steps, seen) is HistoryReason.EPOCH
    # One restart, one new epoch.
    assert await steps.log.record(SESSION, [NewEntry("session", b"{}")], pristine=False) == (
        title.plus(1)
    )
    assert await steps.ask(NEXT_ANSWER) == title.plus(2)


async def test_a_title_after_a_restart_leaves_the_answer_in_the_making_alone(steps: Steps) -> None:
    await steps.ask()
    lease = await steps.begin()
    assert await steps.write(lease, 0, "one") is AppendOutcome.OK
    await steps.under_test.restart(SESSION)
    title = await steps.log.record(SESSION, [NewEntry("session", b"{}")], pristine=False)
    assert await steps.write(lease, 1, " two") is AppendOutcome.OK
    assert known((await steps.log.snapshot(SESSION)).active).text == "one two"
    assert await steps.finish(lease) is AppendOutcome.OK
    assert await steps.log.tails([SESSION]) == [title.plus(2)]


async def test_an_end_that_is_told_after_a_restart_begins_a_new_epoch(steps: Steps) -> None:
    """All was said and the final state stored; the log may have lost the last words since."""
    await steps.ask()
    lease = await steps.begin()
    assert await steps.write(lease, 0, "one") is AppendOutcome.OK
    [seen] = await steps.log.tails([SESSION])
    await steps.under_test.restart(SESSION)
    assert await steps.finish(lease) is AppendOutcome.OK
    [told] = await steps.log.tails([SESSION])
    assert (told.epoch > seen.epoch, told.seq) == (True, 0)
    assert await _judged(steps, seen) is HistoryReason.EPOCH
    assert await steps.ask(NEXT_ANSWER) == told.plus(1)
