"""Whoever dies or is late between any two steps: one voice, nothing lost, and an end at last.

Hypothesis lets two workers and a web node take their steps towards the log and the database in any
order, loses replies, carries calls out that were given up long ago, kills processes between two
steps, lets leases run out and Redis forget, and hands jobs to whom it likes, as a queue and a
reconciler may that know nothing. The workers are the product's own, over the log in memory and over
a real Valkey, and over a real database. A reader follows meanwhile and refuses whatever the
contract does not allow.

The runs are the same each time. To look for longer, and elsewhere:

    MACHINE_EXAMPLES=2000 pytest --timeout 0 tests/unit/test_lease_machine.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.lease_machine import LeaseMachine

_EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "0"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_over_the_log_in_memory(sqlite_template: Path) -> None:
    class Machine(LeaseMachine):
        template = sqlite_template

    _look(Machine, examples=60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_over_a_real_valkey(sqlite_template: Path, valkey: str) -> None:
    class Machine(LeaseMachine):
        template = sqlite_template

    Machine.valkey = valkey
    _look(Machine, examples=8)


def _look(machine: type[LeaseMachine], *, examples: int) -> None:
    with structlog.testing.capture_logs():
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=_EXAMPLES or examples,
                stateful_step_count=40,
                derandomize=not _EXAMPLES,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
