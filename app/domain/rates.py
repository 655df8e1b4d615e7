"""How often something may be done: buckets that leak (GCRA, ITU-T I.371), as values.

A bucket is one number: how full it is, in microseconds until it is empty again. Each thing that is
done adds its interval, time takes it away, and what would overflow is refused. So a whole period's
worth may come at once, and after that as much as the rate allows; no window begins anew at a time
that anybody could wait for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_US: int = 1_000_000


class Rate(NamedTuple):
    """So many in a period, all at once or spread over it; a limit of 0 is none."""

    limit: int
    period_seconds: int

    @property
    def interval_us(self) -> int:
        """What one adds to the bucket: rounded down, so that the last of a period still fits."""
        return self.period_seconds * _US // self.limit

    @property
    def capacity_us(self) -> int:
        """What the bucket holds."""
        return self.interval_us * self.limit


class Charge(NamedTuple):
    """What something adds to one bucket; a negative cost takes back."""

    bucket: str
    rate: Rate
    cost: int = 1

    @property
    def amount_us(self) -> int:
        """What is added; more than the whole bucket counts as the whole of it."""
        return self.rate.interval_us * min(self.cost, self.rate.limit)


class Verdict(NamedTuple):
    """What a set of charges came to: all of them, or none."""

    allowed: bool
    bucket: str
    """The one that speaks for them: the one that refuses longest, else the fullest."""
    limit: int
    remaining: int
    """How many more of cost 1 this bucket would take now."""
    reset_seconds: int
    """When it will be empty, rounded up."""
    retry_after_seconds: int
    """When the refused charges would be taken, rounded up; 0 where they were."""


def overflows(charge: Charge, filled_us: int) -> bool:
    """Say whether a bucket that is so full refuses the charge; what takes back never does."""
    return 0 < charge.amount_us > charge.rate.capacity_us - filled_us


def judge(charges: Sequence[Charge], filled_us: Sequence[int], *, allowed: bool) -> Verdict:
    """Say what came of charges, by how full their buckets are now."""
    found = [
        _verdict(charge, filled, allowed=allowed)
        for charge, filled in zip(charges, filled_us, strict=True)
    ]
    if allowed:
        return min(found, key=lambda verdict: verdict.remaining / verdict.limit)
    return max(found, key=lambda verdict: verdict.retry_after_seconds)


def _verdict(charge: Charge, filled_us: int, *, allowed: bool) -> Verdict:
    rate = charge.rate
    missing_us = 0
    if not allowed and overflows(charge, filled_us):
        missing_us = filled_us + charge.amount_us - rate.capacity_us
    return Verdict(
        allowed=allowed,
        bucket=charge.bucket,
        limit=rate.limit,
        remaining=max(rate.capacity_us - filled_us, 0) // rate.interval_us,
        reset_seconds=math.ceil(filled_us / _US),
        retry_after_seconds=math.ceil(missing_us / _US),
    )
