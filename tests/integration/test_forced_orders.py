"""The rarer rows of ``docs/decisions/0009-lease-and-log-protocol.md``, each forced.

The product's own workers and web node take their steps one by one; the judge of the state machine
looks after each, and at the end every answer must be final, told once, and shown as it is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gates import Leave, Process
from tests.support.lease_steps import THE_END, LeaseSteps


@pytest.fixture
def steps(sqlite_template: Path) -> Iterator[LeaseSteps]:
    made = LeaseSteps()
    made.template = sqlite_template
    made.set(continues=True)
    yield made
    made.close()


def _ask(steps: LeaseSteps) -> str:
    steps.stage.ask()
    steps.step_all(steps.stage.web)
    return steps.latest()


def _take(steps: LeaseSteps, answer: str, which: int = 0) -> Process:
    worker = steps.stage.workers[which]
    worker.take(answer)
    steps.run(steps.gates.settle())
    return worker.process


def _arrive(steps: LeaseSteps) -> None:
    steps.run(steps.gates.arrive_late(0))
    steps.look()


def _statuses(steps: LeaseSteps) -> list[tuple[str, int]]:
    return [(row.status, row.attempt) for row in steps.judge.stored()]


@pytest.mark.parametrize("moment", ["log claim", "log start", "log append", THE_END, "log finish"])
def test_a_stop_held_up_on_its_way_leaves_the_answer_asked_for_again_alone(
    steps: LeaseSteps, moment: str
) -> None:
    """K, X held up, F and T, asked for again, and only then X."""
    answer = _ask(steps)
    worker = _take(steps, answer)
    steps.let_go_on_to(worker, "log append", 1)
    steps.stage.stop(answer)
    steps.run(steps.gates.settle())
    steps.let_go_on_to(steps.stage.web, "log cancel", 1)
    assert steps.let(steps.stage.web, Leave.LATE)
    steps.step_all(worker, steps.stage.web)
    assert _statuses(steps) == [("cancelled", 1)]

    steps.stage.ask_again(answer)
    steps.run(steps.gates.settle())
    steps.step_all(steps.stage.web)
    again = _take(steps, answer, 1)
    steps.let_go_on_to(again, moment, 1)
    _arrive(steps)
    steps.stage.workers[1].renew()
    steps.run(steps.gates.settle())
    steps.step_all(*steps.processes())
    assert _statuses(steps) == [("complete", 3)]
    steps.come_to_rest()


def test_a_late_submit_in_the_middle_of_the_next_answer_costs_an_attempt_and_no_text(
    steps: LeaseSteps,
) -> None:
    """Late U: the log awaits the older answer, and the worker of the next one begins again."""
    steps.stage.ask()
    steps.run(steps.gates.settle())
    steps.let_go_on_to(steps.stage.web, "log submit", 1)
    assert steps.let(steps.stage.web, Leave.LATE)
    steps.step_all(steps.stage.web)
    first = steps.latest()
    steps.step_all(_take(steps, first))
    second = _ask(steps)
    worker = _take(steps, second)
    steps.let_go_on_to(worker, "log append", 2)
    _arrive(steps)
    steps.step_all(*steps.processes())
    assert _statuses(steps) == [("complete", 1), ("complete", 2)]
    steps.come_to_rest()


@pytest.mark.parametrize("other", [False, True])
def test_a_late_claim_costs_a_lease_s_time_at_most(steps: LeaseSteps, other: bool) -> None:
    """Late C: by nobody who still wants it, or by the very worker that has the session."""
    answer = _ask(steps)
    worker = _take(steps, answer)
    assert steps.let(worker, Leave.LATE)
    steps.step_all(worker)
    if other:
        _arrive(steps)
        worker = _take(steps, answer, 1)
        steps.let_go_on(worker, 3)
        # It is held by a worker that does not know, for as long as a lease lasts.
        assert _statuses(steps) == [("queued", 0)]
        steps.end_lease()
    else:
        worker = _take(steps, answer)
        steps.let_go_on_to(worker, "log append", 2)
        # A larger token, which the worker does not know: its next words are refused.
        _arrive(steps)
        steps.step_all(worker)
        assert _statuses(steps) == [("streaming", 1)]
    steps.come_to_rest()
    assert _statuses(steps) == [("complete", 1 if other else 2)]
