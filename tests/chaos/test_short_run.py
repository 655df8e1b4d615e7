"""A short run of the chaos program with each kind of harm that its seconds allow."""

from __future__ import annotations

import itertools

import pytest

from tests.chaos.faults import FAULTS, LEAST_FAULTS, schedule
from tests.chaos.run import run
from tests.support.nodes import LEASE_SECONDS

_SEED = 17
"""Plans most kinds of harm into so short a time, with those that cost the most among them."""


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_nothing_is_lost_repeated_or_reordered() -> None:
    """Every promise holds while workers, web nodes and Redis come and go."""
    report = await run(
        seconds=18,
        seed=_SEED,
        sessions=8,
        web=2,
        workers=2,
        postgresql=None,
        say=print,
        pauses=(0.5, 1.0),
    )
    assert report.breaches == [], report.text()
    assert report.asked >= 8, report.text()
    assert len(report.faults) >= LEAST_FAULTS, report.text()


def test_the_same_seed_plans_the_same_harm() -> None:
    assert schedule(5, 300) == schedule(5, 300) != schedule(6, 300)
    assert schedule(5, 300)[:10] == schedule(5, 200)[:10]
    assert {planned.name for planned in schedule(5, 300)} == set(FAULTS)


def test_chosen_kinds_come_alone() -> None:
    """Far enough from each other for what one costs to be told from what the next does."""
    kinds = ["worker killed", "worker stopped"]
    planned = schedule(5, 300, kinds=kinds)
    assert {one.name for one in planned} == set(kinds)
    begins = [one.at_seconds for one in planned]
    assert all(later - one > LEASE_SECONDS + 1 for one, later in itertools.pairwise(begins))


def test_what_lasts_has_ended_when_the_next_begins() -> None:
    for seed in range(20):
        planned = schedule(seed, 60)
        ends = [one.at_seconds + FAULTS[one.name].lasts_seconds for one in planned]
        begins = [one.at_seconds for one in planned[1:]]
        assert all(end < begin for end, begin in zip(ends, [*begins, 61.0], strict=True))
