"""Joining what a log holds with what is published from it: without a gap, a repeat or a guess.

``Tail`` is what one node knows of one session's log: its newest entries, contiguous. It decides,
for entries that arrive and for positions that clients come with, and leaves all reading to others.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from app.domain.events import Entry
from app.domain.frames import HistoryReason
from app.domain.position import BEFORE_ALL, Position


class Offered(enum.Enum):
    """What became of entries that were published."""

    TAKEN = enum.auto()
    REPEATED = enum.auto()
    """All of them were known."""
    HOLE = enum.auto()
    """They do not follow on what is known: read the log from ``Tail.position``."""


class Unserved(enum.Enum):
    """Why a position is not served from the tail."""

    OLDER = enum.auto()
    """The log may still hold what the tail let go: read it there."""
    UNKNOWN = enum.auto()
    """Ahead of the tail or of another epoch: compare with the log before judging."""


class Tail:
    """The newest entries of one log, bounded in number and bytes; a pure state machine.

    Holds at least ``max_entries`` and at most a quarter more, unless they weigh too much.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        """Start without knowledge: ``loaded`` is false until the log was read once."""
        self.max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: list[Entry] = []
        self._bytes = 0
        self._original = False
        self.position = BEFORE_ALL
        """The newest entry; 0-0 for a log that is not there."""
        self.loaded = False

    def reset(self, entries: Sequence[Entry], last: Position, *, original: bool) -> None:
        """Take what a read of the log gave, in place of everything known.

        ``original`` says that the first of ``entries`` is the first that the session ever had.
        """
        self._entries.clear()
        self._bytes = 0
        current = [entry for entry in entries if entry.position.epoch == last.epoch]
        self._original = original and len(current) == len(entries)
        self.position = last
        self.loaded = True
        self._extend(current)

    def offer(self, entries: Sequence[Entry], *, original: bool) -> Offered:
        """Take published entries that follow on what is known; drop those that are known."""
        if not self.loaded:
            return Offered.HOLE
        first = entries[0].position
        if first.epoch != self.position.epoch:
            if self.position != BEFORE_ALL or first.seq != 0:
                # A new epoch that was not seen from its first entry, or that followed another
                # one: the log says what it holds.
                return Offered.HOLE
            self._original = original
            self._extend(entries)
            return Offered.TAKEN
        fresh = [entry for entry in entries if entry.position > self.position]
        if not fresh:
            return Offered.REPEATED
        if fresh[0].position != self.position.plus(1):
            return Offered.HOLE
        self._extend(fresh)
        return Offered.TAKEN

    def after(self, position: Position, limit: int) -> Sequence[Entry] | Unserved:
        """Give up to ``limit`` entries right after a position: contiguous, or none at all."""
        if position == self.position:
            return ()
        if position == BEFORE_ALL and self._original:
            return self._entries[:limit]
        if position.epoch != self.position.epoch or position > self.position:
            return Unserved.UNKNOWN
        first = self._entries[0].position.seq if self._entries else self.position.seq + 1
        skipped = position.seq + 1 - first
        if skipped < 0:
            return Unserved.OLDER
        return self._entries[skipped : skipped + limit]

    def _extend(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._entries.append(entry)
            self._bytes += len(entry.data)
            self.position = entry.position
        if len(self._entries) > self.max_entries + self.max_entries // 4:
            self._let_go(len(self._entries) - self.max_entries)
        # More than once where the small ones come first; the newest stays, however large.
        while self._bytes > self._max_bytes and len(self._entries) > 1:
            # Half at once, so that a list of large entries is not shifted for each new one.
            self._let_go(len(self._entries) // 2)

    def _let_go(self, count: int) -> None:
        self._bytes -= sum(len(entry.data) for entry in self._entries[:count])
        del self._entries[:count]
        self._original = self._original and count == 0


def judge(
    position: Position, first: Position | None, last: Position, *, original: bool
) -> HistoryReason | None:
    """Say whether a log that holds ``first`` to ``last`` has everything after ``position``.

    Gives None where it has, else the reason for which the client needs the whole state.
    ``original`` says that ``first`` is the first entry that the session ever had.
    """
    if position == last:
        return None
    if first is None:
        return HistoryReason.EPOCH
    if position == BEFORE_ALL:
        if original and first.epoch == last.epoch:
            return None
        return HistoryReason.TRIMMED if first.seq > 0 else HistoryReason.EPOCH
    if position.epoch != last.epoch or position > last:
        return HistoryReason.EPOCH
    if position.epoch == first.epoch and position.seq + 1 < first.seq:
        return HistoryReason.TRIMMED
    return None
