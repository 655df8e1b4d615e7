"""What a run came to: what was asked and how it ended, and every breach of a promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """Counts and distributions of one run."""

    answers: Counter[str] = field(default_factory=Counter)
    """By final status."""
    attempts: Counter[int] = field(default_factory=Counter)
    """Answers by the number of the attempt that ended them."""
    faults: Counter[str] = field(default_factory=Counter)
    transports: Counter[str] = field(default_factory=Counter)
    """Connections by transport."""
    histories: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    """Requests that were refused in the documented way, by code."""
    breaches: list[str] = field(default_factory=list)
    """Each a sentence; a run without any kept every promise."""
    failover_seconds: list[float] = field(default_factory=list)
    """From the last event before another attempt to that attempt's first."""
    resume_seconds: list[float] = field(default_factory=list)
    """From opening a connection to its first frame."""

    @property
    def asked(self) -> int:
        """Count the questions that were accepted."""
        return sum(self.answers.values())

    def text(self) -> str:
        """Write it for a person."""
        lines = [
            f"questions accepted   {self.asked}",
            *_counted("ended", self.answers),
            *_counted("at attempt", self.attempts),
            *_counted("connections by", self.transports),
            *_counted("histories,", self.histories),
            *_counted("refused,", self.refusals),
            *_counted("harm,", self.faults),
            f"failover gap         {_spread(self.failover_seconds)}",
            f"time to resume       {_spread(self.resume_seconds)}",
            f"promises broken      {len(self.breaches)}",
            *(f"  {breach}" for breach in self.breaches[:20]),
        ]
        return "\n".join(lines)


def _counted(label: str, counts: Counter[str] | Counter[int]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: str(item[0]))
    return [f"{f'{label} {name}':<40} {count}" for name, count in ordered]


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "none seen"
    ordered = sorted(seconds)
    middle, late = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"p50 {middle:.2f} s, p99 {late:.2f} s, longest {ordered[-1]:.2f} s of {len(ordered)}"
