"""The tail of a log: contiguous, right, bounded, and never silent about what it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import Entry
from app.domain.frames import HistoryReason
from app.domain.position import BEFORE_ALL, Position
from app.domain.resume import Offered, Tail, Unserved, judge

_UNBOUNDED = 2**40


def _entry(epoch: int, seq: int, data: bytes | None = None) -> Entry:
    return Entry(Position(epoch, seq), "chunk", data or b'"%d-%d"' % (epoch, seq))


def _entries(epoch: int, first: int, last: int) -> list[Entry]:
    return [_entry(epoch, seq) for seq in range(first, last + 1)]


def _tail(max_entries: int = 100, max_bytes: int = _UNBOUNDED) -> Tail:
    return Tail(max_entries=max_entries, max_bytes=max_bytes)


def _loaded(epoch: int, first: int, last: int, *, original: bool = False) -> Tail:
    tail = _tail()
    tail.reset(_entries(epoch, first, last), Position(epoch, last), original=original)
    return tail


def _empty() -> Tail:
    tail = _tail()
    tail.reset([], BEFORE_ALL, original=False)
    return tail


def _seqs(found: Sequence[Entry] | Unserved) -> list[int]:
    assert not isinstance(found, Unserved), found
    return [entry.position.seq for entry in found]


class TestOffer:
    def test_a_tail_that_knows_nothing_takes_nothing(self) -> None:
        tail = _tail()
        assert tail.offer(_entries(5, 0, 0), original=True) is Offered.HOLE
        assert not tail.loaded
        assert tail.position == BEFORE_ALL

    @pytest.mark.parametrize(
        ("offered", "outcome", "position"),
        [
            ((5, 8, 8), Offered.TAKEN, (5, 8)),
            ((5, 8, 12), Offered.TAKEN, (5, 12)),
            ((5, 7, 7), Offered.REPEATED, (5, 7)),
            ((5, 3, 7), Offered.REPEATED, (5, 7)),
            ((5, 0, 2), Offered.REPEATED, (5, 7)),
            ((5, 6, 9), Offered.TAKEN, (5, 9)),
            ((5, 0, 8), Offered.TAKEN, (5, 8)),
            ((5, 9, 9), Offered.HOLE, (5, 7)),
            ((5, 20, 25), Offered.HOLE, (5, 7)),
            ((6, 0, 0), Offered.HOLE, (5, 7)),
            ((6, 8, 8), Offered.HOLE, (5, 7)),
            ((4, 8, 8), Offered.HOLE, (5, 7)),
        ],
    )
    def test_what_follows_is_taken_and_nothing_else(
        self, offered: tuple[int, int, int], outcome: Offered, position: tuple[int, int]
    ) -> None:
        tail = _loaded(5, 4, 7)
        assert tail.offer(_entries(*offered), original=False) is outcome
        assert tail.position == position
        assert _seqs(tail.after(Position(5, 3), 100)) == list(range(4, position[1] + 1))

    @pytest.mark.parametrize("original", [True, False])
    def test_the_first_entries_of_all_are_taken_from_their_publication(
        self, original: bool
    ) -> None:
        tail = _empty()
        assert tail.offer(_entries(5, 0, 2), original=original) is Offered.TAKEN
        assert tail.position == (5, 2)
        served = tail.after(BEFORE_ALL, 10)
        assert (served == _entries(5, 0, 2)) if original else (served is Unserved.UNKNOWN)

    def test_a_log_that_began_unseen_is_a_hole(self) -> None:
        tail = _empty()
        assert tail.offer(_entries(5, 1, 2), original=False) is Offered.HOLE
        assert tail.position == BEFORE_ALL


class TestAfter:
    @pytest.mark.parametrize(
        ("position", "found"),
        [
            ((5, 7), []),
            ((5, 6), [7]),
            ((5, 3), [4, 5, 6, 7]),
            ((5, 2), Unserved.OLDER),
            ((5, 0), Unserved.OLDER),
            ((5, 8), Unserved.UNKNOWN),
            ((4, 7), Unserved.UNKNOWN),
            ((4, 999), Unserved.UNKNOWN),
            ((6, 0), Unserved.UNKNOWN),
            ((0, 0), Unserved.UNKNOWN),
            ((0, 5), Unserved.UNKNOWN),
            ((10**15, 10**15), Unserved.UNKNOWN),
        ],
    )
    def test_everything_right_after_a_position_or_nothing(
        self, position: tuple[int, int], found: list[int] | Unserved
    ) -> None:
        served = _loaded(5, 4, 7).after(Position(*position), 100)
        if isinstance(found, Unserved):
            assert served is found
        else:
            assert _seqs(served) == found

    def test_the_limit_cuts_the_end_and_not_the_beginning(self) -> None:
        tail = _loaded(5, 0, 9, original=True)
        assert _seqs(tail.after(Position(5, 2), 3)) == [3, 4, 5]
        assert _seqs(tail.after(BEFORE_ALL, 3)) == [0, 1, 2]

    @pytest.mark.parametrize("original", [True, False])
    def test_from_before_all_only_where_nothing_came_before(self, original: bool) -> None:
        """An epoch's first entry is the session's first only where the log says so."""
        found = _loaded(5, 0, 3, original=original).after(BEFORE_ALL, 10)
        assert (_seqs(found) == [0, 1, 2, 3]) if original else (found is Unserved.UNKNOWN)

    def test_from_before_all_no_more_once_the_first_entry_was_let_go(self) -> None:
        tail = _tail(max_entries=4)
        tail.reset([], BEFORE_ALL, original=False)
        for seq in range(6):
            assert tail.offer([_entry(5, seq)], original=seq == 0) is Offered.TAKEN
        assert tail.after(BEFORE_ALL, 10) is Unserved.UNKNOWN

    def test_a_log_that_is_not_there_has_nothing_after_its_position(self) -> None:
        assert _seqs(_empty().after(BEFORE_ALL, 10)) == []
        assert _empty().after(Position(5, 0), 10) is Unserved.UNKNOWN

    def test_a_position_is_known_where_its_entries_were_let_go(self) -> None:
        """All entries may weigh too much; the place they led to stays right."""
        tail = _tail(max_bytes=10)
        tail.reset([_entry(5, 3, b"x" * 100)], Position(5, 3), original=False)
        assert _seqs(tail.after(Position(5, 3), 10)) == []
        assert isinstance(tail.after(Position(5, 1), 10), Unserved)


class TestReset:
    def test_what_was_known_before_is_forgotten(self) -> None:
        tail = _loaded(5, 0, 9, original=True)
        tail.reset(_entries(6, 0, 1), Position(6, 1), original=False)
        assert tail.position == (6, 1)
        assert tail.after(Position(5, 8), 10) is Unserved.UNKNOWN
        assert tail.after(BEFORE_ALL, 10) is Unserved.UNKNOWN
        assert _seqs(tail.after(Position(6, 0), 10)) == [1]

    def test_a_lost_log_leaves_nothing(self) -> None:
        tail = _loaded(5, 0, 9, original=True)
        tail.reset([], BEFORE_ALL, original=False)
        assert tail.position == BEFORE_ALL
        assert tail.after(Position(5, 9), 10) is Unserved.UNKNOWN

    def test_of_two_epochs_in_one_read_the_later_counts(self) -> None:
        """A log that was begun anew over its old end holds both; positions count in the new one."""
        tail = _tail()
        both = [*_entries(5, 0, 3), *_entries(6, 0, 2)]
        tail.reset(both, Position(6, 2), original=True)
        assert tail.position == (6, 2)
        assert _seqs(tail.after(Position(6, 0), 10)) == [1, 2]
        assert tail.after(Position(5, 3), 10) is Unserved.UNKNOWN
        assert tail.after(BEFORE_ALL, 10) is Unserved.UNKNOWN


class TestBounds:
    @given(st.lists(st.integers(min_value=1, max_value=7), max_size=40))
    def test_number(self, counts: list[int]) -> None:
        tail = _tail(max_entries=8)
        tail.reset([], BEFORE_ALL, original=False)
        at = 0
        for count in counts:
            tail.offer(_entries(5, at, at + count - 1), original=at == 0)
            at += count
            held = _held(tail)
            assert min(at, 8) <= len(held) <= 10
            assert held == list(range(at - len(held), at))

    @given(st.lists(st.integers(min_value=1, max_value=300), min_size=1, max_size=40))
    def test_bytes(self, sizes: list[int]) -> None:
        tail = _tail(max_entries=1000, max_bytes=1000)
        tail.reset([], BEFORE_ALL, original=False)
        for seq, size in enumerate(sizes):
            tail.offer([_entry(5, seq, b"x" * size)], original=seq == 0)
            held = _held(tail)
            assert held == list(range(seq + 1 - len(held), seq + 1))
            assert sum(sizes[at] for at in held) <= 1000
            if sum(sizes[: seq + 1]) <= 1000:
                assert len(held) == seq + 1

    def test_letting_go_for_weight_leaves_half(self) -> None:
        tail = _tail(max_entries=1000, max_bytes=1000)
        tail.reset([], BEFORE_ALL, original=False)
        for seq in range(11):
            tail.offer([_entry(5, seq, b"x" * 100)], original=seq == 0)
        assert _held(tail) == list(range(5, 11))


def _held(tail: Tail) -> list[int]:
    """Everything that the tail serves, found from outside: from the oldest position it serves."""
    for seq in range(tail.position.seq + 1):
        found = tail.after(Position(tail.position.epoch, seq), _UNBOUNDED)
        if not isinstance(found, Unserved):
            oldest = tail.after(BEFORE_ALL, _UNBOUNDED)
            return _seqs(found if isinstance(oldest, Unserved) else oldest)
    return []


class _Publication(NamedTuple):
    epoch: int
    first: int
    last: int


class _World(NamedTuple):
    """Two epochs of a log, written one after the other, and what reaches a node in what order."""

    lengths: tuple[int, int]
    arrivals: list[_Publication]
    read_after: frozenset[int]
    """After which arrivals the node reads the log."""
    original: bool
    max_entries: int


@st.composite
def _worlds(draw: st.DrawFn) -> _World:
    publications: list[_Publication] = []
    lengths = (draw(st.integers(1, 25)), draw(st.integers(0, 25)))
    for epoch, length in zip((5, 6), lengths, strict=True):
        at = 0
        while at < length:
            last = min(length - 1, at + draw(st.integers(0, 4)))
            publications.append(_Publication(epoch, at, last))
            at = last + 1
    arrivals = draw(
        st.lists(st.sampled_from(publications), max_size=30)
        | st.permutations(publications)
        | st.just(publications)
    )
    return _World(
        lengths,
        list(arrivals),
        draw(st.frozensets(st.integers(0, len(arrivals)), max_size=3)),
        draw(st.booleans()),
        draw(st.integers(1, 12)),
    )


@given(_worlds())
def test_whatever_arrives_what_is_served_is_right_and_whole(world: _World) -> None:
    """Lost, repeated, overtaking publications of two epochs: never a silent hole, never a guess.

    What is served after a position is exactly what that epoch's log has next, up to where the
    tail says that it stands.
    """
    tail = _tail(max_entries=world.max_entries)
    tail.reset([], BEFORE_ALL, original=False)
    for number, (epoch, first, last) in enumerate(world.arrivals):
        before = tail.position
        original = world.original and (epoch, first) == (5, 0)
        outcome = tail.offer(_entries(epoch, first, last), original=original)
        if outcome is Offered.TAKEN:
            assert tail.position == (epoch, last)
            assert (epoch, first) == (before.epoch, before.seq + 1) or (
                first <= before.seq < last if before.epoch == epoch else before == BEFORE_ALL
            )
        else:
            assert tail.position == before
        if number in world.read_after:
            end = world.lengths[epoch - 5] - 1
            begin = max(0, end - world.max_entries + 1)
            tail.reset(
                _entries(epoch, begin, end),
                Position(epoch, end),
                original=world.original and epoch == 5 and begin == 0,
            )
        _check_everything_served(tail, world)


def _check_everything_served(tail: Tail, world: _World) -> None:
    at = tail.position
    for epoch, length in zip((5, 6), world.lengths, strict=True):
        for seq in range(length + 2):
            found = tail.after(Position(epoch, seq), _UNBOUNDED)
            if isinstance(found, Unserved):
                continue
            assert epoch == at.epoch
            assert found == _entries(epoch, seq + 1, at.seq) or (seq == at.seq and not found)
    found = tail.after(BEFORE_ALL, _UNBOUNDED)
    if not isinstance(found, Unserved) and at != BEFORE_ALL:
        assert world.original
        assert found == _entries(5, 0, at.seq)
        assert at.epoch == 5


@given(_worlds())
def test_a_client_that_takes_what_is_served_has_all_of_it(world: _World) -> None:
    """Taken in frames of two, after each arrival or later: nothing twice, nothing left out."""
    tail = _tail(max_entries=world.max_entries)
    tail.reset([], BEFORE_ALL, original=False)
    cursor: Position | None = None
    taken: list[Position] = []
    for epoch, first, last in world.arrivals:
        if tail.offer(_entries(epoch, first, last), original=False) is Offered.HOLE:
            continue
        if cursor is None:
            cursor = tail.position
        found = tail.after(cursor, 2)
        if isinstance(found, Unserved):
            assert found is Unserved.OLDER
            cursor = tail.position
            taken.clear()
            continue
        taken += [entry.position for entry in found]
        cursor = taken[-1] if found else cursor
    assert taken == [Position(at.epoch, taken[0].seq + n) for n, at in enumerate(taken)]


_JUDGED: list[tuple[tuple[int, int], tuple[int, int] | None, tuple[int, int], bool, str | None]] = [
    # position, first, last, original, reason
    ((5, 9), (5, 0), (5, 9), True, None),
    ((5, 4), (5, 0), (5, 9), True, None),
    ((5, 4), (5, 5), (5, 9), False, None),
    ((5, 3), (5, 5), (5, 9), False, "trimmed"),
    ((5, 0), (5, 5), (5, 9), False, "trimmed"),
    ((5, 10), (5, 0), (5, 9), True, "epoch"),
    ((4, 4), (5, 0), (5, 9), True, "epoch"),
    ((6, 0), (5, 0), (5, 9), True, "epoch"),
    ((6, 99), (5, 0), (5, 9), True, "epoch"),
    # From before everything.
    ((0, 0), (5, 0), (5, 9), True, None),
    ((0, 0), (5, 0), (5, 9), False, "epoch"),
    ((0, 0), (5, 3), (5, 9), False, "trimmed"),
    ((0, 1), (5, 0), (5, 9), True, "epoch"),
    # A log that is not there.
    ((0, 0), None, (0, 0), False, None),
    ((5, 9), None, (0, 0), False, "epoch"),
    ((0, 1), None, (0, 0), False, "epoch"),
    # Begun anew over its old end: both epochs are in it.
    ((6, 2), (5, 4), (6, 3), False, None),
    ((6, 3), (5, 4), (6, 3), False, None),
    ((6, 4), (5, 4), (6, 3), False, "epoch"),
    ((5, 6), (5, 4), (6, 3), False, "epoch"),
    ((0, 0), (5, 0), (6, 3), True, "epoch"),
    ((0, 0), (5, 4), (6, 3), False, "trimmed"),
]


@pytest.mark.parametrize(("position", "first", "last", "original", "reason"), _JUDGED)
def test_a_log_is_judged(
    position: tuple[int, int],
    first: tuple[int, int] | None,
    last: tuple[int, int],
    original: bool,
    reason: str | None,
) -> None:
    judged = judge(
        Position(*position),
        None if first is None else Position(*first),
        Position(*last),
        original=original,
    )
    assert judged == (None if reason is None else HistoryReason(reason))


@given(
    position=st.builds(Position, st.integers(4, 7), st.integers(0, 30)) | st.just(BEFORE_ALL),
    first=st.integers(0, 20),
    length=st.integers(1, 10),
    original=st.booleans(),
)
def test_a_log_that_is_judged_whole_has_the_very_next_entry(
    position: Position, first: int, length: int, original: bool
) -> None:
    last = first + length - 1
    original = original and first == 0
    whole = judge(position, Position(5, first), Position(5, last), original=original) is None
    if position == BEFORE_ALL:
        assert whole == original
    elif position.epoch != 5:
        assert not whole
    else:
        assert whole == (first - 1 <= position.seq <= last)
