"""When a model server is asked, and when it is left alone."""

from __future__ import annotations

import pytest

from app.models.circuit import Circuit, CircuitState
from app.models.client import ModelFailed

OPEN, HALF_OPEN, CLOSED = CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Circuit:
    circuit = Circuit(failures=2, seconds=10, clock=clock)
    for _ in range(2):
        circuit.failed(circuit.enter())
    return circuit


def refused(circuit: Circuit) -> bool:
    try:
        trial = circuit.enter()
    except ModelFailed as failure:
        return failure.answer_code == "model_unavailable"
    circuit.left(trial)
    return False


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    circuit = Circuit(failures=2, seconds=10)
    circuit.failed(circuit.enter())
    circuit.succeeded(circuit.enter())
    circuit.failed(circuit.enter())
    assert circuit.state is CLOSED
    circuit.failed(circuit.enter())
    assert circuit.state is OPEN
    assert refused(circuit)


def test_a_refusal_says_when_it_is_tried_again() -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += 4
    with pytest.raises(ModelFailed, match="tried again in 6 s"):
        circuit.enter()


def test_after_its_time_one_question_tries_and_the_others_do_not() -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += 10
    assert circuit.state is HALF_OPEN
    trial = circuit.enter()
    assert refused(circuit)
    circuit.succeeded(trial)
    assert circuit.state is CLOSED
    assert not refused(circuit)


def test_a_trial_that_fails_doubles_the_time_up_to_eight_times() -> None:
    clock = Clock()
    circuit = opened(clock)
    for wait in (10, 20, 40, 80, 80):
        clock.now += wait - 1
        assert circuit.state is OPEN
        clock.now += 1
        assert circuit.state is HALF_OPEN
        circuit.failed(circuit.enter())
    clock.now += 80
    circuit.succeeded(circuit.enter())
    for _ in range(2):
        circuit.failed(circuit.enter())
    clock.now += 10
    assert circuit.state is HALF_OPEN, "after a success the time begins anew"


def test_a_trial_that_nobody_waited_for_lets_the_next_one_try() -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += 10
    circuit.left(circuit.enter())
    assert not refused(circuit)


def test_failures_of_questions_asked_before_it_opened_do_not_prolong_it() -> None:
    clock = Clock()
    circuit = Circuit(failures=1, seconds=10, clock=clock)
    first, late = circuit.enter(), circuit.enter()
    circuit.failed(first)
    clock.now += 9
    circuit.failed(late)
    clock.now += 1
    assert circuit.state is HALF_OPEN
