"""Resuming: who is given what they missed, and who is given the whole state instead."""

from __future__ import annotations

import pytest

from app.domain.events import Chunk, Entry, new_entry
from app.domain.frames import HistoryReason
from app.domain.position import BEFORE_ALL, Position
from app.domain.resume import Offered, Tail, Unserved, judge


def _chunks(first: int, last: int, epoch: int = 7) -> list[Entry]:
    made = [(seq, new_entry(Chunk("a", 1, seq, seq, "x"))) for seq in range(first, last + 1)]
    return [Entry(Position(epoch, seq), new.type, new.data) for seq, new in made]


@pytest.fixture
def tail() -> Tail:
    """What a node knows of a log whose first entries it was told of."""
    tail = Tail(max_entries=8, max_bytes=100_000)
    tail.reset([], BEFORE_ALL, original=False)
    tail.offer(_chunks(0, 3), original=True)
    return tail


def test_one_cursor_is_all_that_a_reader_costs(tail: Tail) -> None:
    """A node holds the newest entries once; each reader has a position into them."""
    assert tail.after(Position(7, 1), 100) == _chunks(2, 3)
    assert tail.after(Position(7, 3), 100) == ()


def test_what_is_published_follows_on(tail: Tail) -> None:
    """Live delivery is the same as replay: entries after a position."""
    assert tail.offer(_chunks(4, 5), original=False) is Offered.TAKEN
    assert tail.after(Position(7, 3), 100) == _chunks(4, 5)


def test_a_publication_may_come_twice(tail: Tail) -> None:
    """Its positions are known already."""
    assert tail.offer(_chunks(2, 3), original=False) is Offered.REPEATED
    assert tail.after(Position(7, 1), 100) == _chunks(2, 3)


def test_a_publication_may_be_lost(tail: Tail) -> None:
    """The next one does not follow on; the log is read, and no reader sees the hole."""
    assert tail.offer(_chunks(5, 5), original=False) is Offered.HOLE
    assert tail.after(Position(7, 3), 100) == ()
    tail.offer(_chunks(4, 5), original=False)
    assert tail.after(Position(7, 3), 100) == _chunks(4, 5)


def test_a_slow_reader_is_sent_to_the_log(tail: Tail) -> None:
    """The tail lets the oldest go; the log may have them still."""
    tail.offer(_chunks(4, 20), original=False)
    assert tail.after(Position(7, 1), 100) is Unserved.OLDER


def test_a_tail_does_not_guess(tail: Tail) -> None:
    """A position that it cannot place may be newer than what it was told of."""
    assert tail.after(Position(7, 4), 100) is Unserved.UNKNOWN
    assert tail.after(Position(8, 0), 100) is Unserved.UNKNOWN


def test_the_log_has_the_last_word() -> None:
    """Everything after the position, or the whole state with the reason; nothing in between."""
    first, last = Position(7, 10), Position(7, 20)

    def reason(written: str) -> HistoryReason | None:
        return judge(Position.parse(written), first, last, original=False)

    assert reason("7-9") is None
    assert reason("7-20") is None
    assert reason("7-8") is HistoryReason.TRIMMED
    assert reason("7-21") is HistoryReason.EPOCH
    assert reason("6-15") is HistoryReason.EPOCH
    assert reason("0-0") is HistoryReason.TRIMMED


def test_from_before_all_needs_the_very_first_entry() -> None:
    """A log that was begun again also has an entry 0: it is not the session's first."""
    log = (Position(7, 0), Position(7, 20))
    assert judge(BEFORE_ALL, *log, original=True) is None
    assert judge(BEFORE_ALL, *log, original=False) is HistoryReason.EPOCH
