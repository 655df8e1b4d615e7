"""What a run came to: what was asked and how it ended, and every breach of a promise."""

from __future__ import annotations

import enum
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.nodes import LEASE_SECONDS

_SETTLING_SECONDS = 2.0
"""For so long after a fault has ended, what is slow may be slow because of it."""


class Breach(enum.StrEnum):
    """What may become of a promise that is broken; each has a line in the report."""

    LOST = "characters lost"
    REPEATED = "characters repeated"
    REORDERED = "characters reordered"
    TWO_VOICES = "two voices in one answer"
    HOLE = "silent holes"
    MISSED_END = "terminal states missed"
    DISOBEYED = "accepted stops that did not hold"
    EVENT_MISSING = "audit events missing"
    EVENT_DOUBLED = "audit events doubled"
    OTHER = "anything else that must not be"


class Required(NamedTuple):
    """How soon it must go on after a fault that comes alone."""

    seconds: float
    share: float = 1.0


REQUIRED_PAUSES = {
    "worker killed": Required(LEASE_SECONDS + 1),
    "worker stopped": Required(1.0),
}
REQUIRED_CATCHING_UP = {"web node killed": Required(1.0, 0.99)}


@dataclass
class Fault:
    """One fault that was carried out; times as ``time.monotonic`` gives them."""

    name: str
    began: float
    ended: float = math.inf


@dataclass
class Report:
    """Counts and distributions of one run."""

    answers: Counter[str] = field(default_factory=Counter)
    """By final status."""
    attempts: Counter[int] = field(default_factory=Counter)
    """Answers by the number of the attempt that ended them."""
    faults: list[Fault] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Faults that cannot be made here, with the reason."""
    transports: Counter[str] = field(default_factory=Counter)
    """Connections by transport."""
    histories: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    """Requests that were refused in the documented way, by code."""
    events: Counter[str] = field(default_factory=Counter)
    """Records of the outbox by type."""
    breaches: list[str] = field(default_factory=list)
    """Each a sentence; a run without any kept every promise."""
    breached: Counter[Breach] = field(default_factory=Counter)
    """How many there are of each kind."""
    finals: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Status and text of each answer as its reader was shown its end, by id."""
    failover_seconds: defaultdict[str, list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By what happened to the worker: from the last chunk at a client before (or from then on, if
    that is later) to the next one, nothing else being wrong meanwhile."""
    disturbed: int = 0
    """Failovers that are not counted, because something else went wrong as well."""
    resume_seconds: list[float] = field(default_factory=list)
    """From opening a connection to its first frame, whatever is going on."""
    caught_up_seconds: defaultdict[str, list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By what ended the connection before: from opening the next one to having everything that
    the log had then, nothing else being wrong meanwhile."""
    answer_seconds: list[float] = field(default_factory=list)
    """From an accepted question to its end at the reader, whatever is going on."""
    fault_now: Fault | None = None
    _interrupted: dict[str, tuple[Fault, float]] = field(default_factory=dict)

    @property
    def asked(self) -> int:
        """Count the questions that were accepted."""
        return sum(self.answers.values())

    def breach(self, kind: Breach, sentence: str) -> None:
        """Note a promise that was broken."""
        self.breached[kind] += 1
        self.breaches.append(f"{kind}: {sentence}")

    @contextmanager
    def doing(self, name: str) -> Iterator[None]:
        """Note a fault; it has ended with the block."""
        fault = self.fault_now = Fault(name, time.monotonic())
        self.faults.append(fault)
        try:
            yield
        finally:
            fault.ended = time.monotonic()
            self.fault_now = None

    def interrupt(self, sessions: Mapping[str, str]) -> None:
        """Note that the workers of these sessions are about to end, by the fault that is made."""
        assert self.fault_now is not None
        for session_id in sessions:
            self._interrupted[session_id] = (self.fault_now, time.monotonic())

    def interrupted(self, session_id: str) -> bool:
        """Say whether a session's answer lost its worker, and has not gone on since."""
        return session_id in self._interrupted

    def gone_on(self, session_id: str, *, last_chunk: float, answered: bool = False) -> None:
        """Note that a client was given the first chunk since; or the answer had been whole.

        ``last_chunk`` is when it was given one before.
        """
        fault, since = self._interrupted.pop(session_id)
        if answered:
            return
        if self.only(fault, since):
            self.failover_seconds[fault.name].append(time.monotonic() - max(since, last_chunk))
        else:
            self.disturbed += 1

    def caught_up(self, after: Fault, since: float) -> None:
        """Note that a client whose connection a fault had ended has everything again."""
        if self.only(after, since):
            self.caught_up_seconds[after.name].append(time.monotonic() - since)

    def only(self, fault: Fault, since: float) -> bool:
        """Say whether nothing but this fault was going on since then."""
        return all(
            other is fault or other.ended + _SETTLING_SECONDS < since for other in self.faults
        )

    def disturbed_until(self) -> float:
        """Give when the fault ended that ended last; infinity while one goes on."""
        return max((fault.ended for fault in self.faults), default=0.0)

    def last_fault(self, name: str) -> Fault | None:
        """Give the fault of that name that was made last."""
        return next((fault for fault in reversed(self.faults) if fault.name == name), None)

    def text(self) -> str:
        """Write it for a person."""
        lines = [
            f"{'questions accepted':<48} {self.asked}",
            *_counted("ended", self.answers),
            *_counted("at attempt", self.attempts),
            *_counted("connections by", self.transports),
            *_counted("histories,", self.histories),
            *_counted("refused,", self.refusals),
            *_counted("recorded,", self.events),
            *_counted("harm,", Counter(fault.name for fault in self.faults)),
            *(f"skipped, {name}: {reason}" for name, reason in sorted(self.skipped.items())),
            "from the last chunk (or the fault) to the next one at a client, nothing else wrong:",
            *_spreads(self.failover_seconds, REQUIRED_PAUSES),
            f"  (and {self.disturbed} while something else was wrong)",
            "from a new connection to having all there is, nothing else wrong:",
            *_spreads(self.caught_up_seconds, REQUIRED_CATCHING_UP),
            f"from any connection to its first frame: {spread(self.resume_seconds)}",
            f"from an accepted question to its end: {spread(self.answer_seconds)}",
            f"{'promises broken':<48} {len(self.breaches)}",
            *(f"{f'  {kind}':<48} {self.breached[kind]}" for kind in Breach),
            *(f"  {breach}" for breach in self.breaches[:20]),
        ]
        return "\n".join(lines)


def _counted(label: str, counts: Counter[str] | Counter[int]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: str(item[0]))
    return [f"{f'{label} {name}':<48} {count}" for name, count in ordered]


def _spreads(by_name: Mapping[str, list[float]], required: Mapping[str, Required]) -> list[str]:
    """Write each distribution, and whether it is as required: a time, which a busy machine spoils.

    It is no promise about characters, and does not decide whether a run succeeded.
    """
    lines = []
    for name in sorted(by_name.keys() | required.keys()):
        seconds = by_name.get(name, [])
        line = f"  {name}: {spread(seconds)}"
        if (limit := required.get(name)) is not None:
            line += f"; required: {limit.share:.0%} within {limit.seconds:g} s: "
            line += verdict(seconds, limit)
        lines.append(line)
    return lines


def verdict(seconds: list[float], limit: Required) -> str:
    """Say PASS or FAIL with the share that was in time, or that there is nothing to judge."""
    if not seconds:
        return "not measured"
    share = sum(one <= limit.seconds for one in seconds) / len(seconds)
    return f"{'PASS' if share >= limit.share else 'FAIL'} ({share:.1%})"


def spread(seconds: list[float]) -> str:
    """Write a distribution: the median, the 99th of a hundred, the longest."""
    if not seconds:
        return "none seen"
    ordered = sorted(seconds)
    middle, late = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"p50 {middle:.2f} s, p99 {late:.2f} s, longest {ordered[-1]:.2f} s of {len(ordered)}"
