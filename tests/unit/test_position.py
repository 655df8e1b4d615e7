"""Positions: one written form, read back to the letter, in the order of the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidPosition, ValidationFailed
from app.domain.position import BEFORE_ALL, Position

_PART = st.integers(min_value=0, max_value=10**16 - 1)
_POSITIONS = st.builds(Position, _PART, _PART)


@given(_POSITIONS)
def test_what_is_written_is_read_back(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(st.text())
def test_whatever_is_read_is_written_the_same_way(written: str) -> None:
    try:
        position = Position.parse(written)
    except InvalidPosition:
        return
    assert str(position) == written


@given(st.text(alphabet="0123456789-", max_size=36))
def test_two_spellings_never_mean_one_position(written: str) -> None:
    try:
        position = Position.parse(written)
    except InvalidPosition:
        return
    assert str(position) == written


@pytest.mark.parametrize(
    "written",
    [
        "",
        "-",
        "1",
        "1-",
        "-1",
        "1-2-3",
        "1--2",
        "-1-2",
        "+1-2",
        "01-2",
        "1-02",
        "00-0",
        " 1-2",
        "1-2 ",
        "1-2\n",
        "\n1-2",
        "1 - 2",
        "1_0-2",
        "1.0-2",
        "1e3-2",
        "0x1-2",
        "1-*",
        "$",
        "+",
        "null",
        "١-٢",
        "１-２",
        "1\u22122",
        "1\x00-2",
        "12345678901234567-0",
        "0-12345678901234567",
        "9" * 5000 + "-0",
    ],
)
def test_all_else_is_refused(written: str) -> None:
    with pytest.raises(InvalidPosition) as refused:
        Position.parse(written)
    assert isinstance(refused.value, ValidationFailed)
    assert refused.value.code == "invalid_position"
    assert refused.value.http_status == 400


def test_sixteen_digits_a_part_are_enough() -> None:
    assert Position.parse(f"{'9' * 16}-{'9' * 16}") == Position(10**16 - 1, 10**16 - 1)


def test_an_epoch_counts_before_a_sequence_number() -> None:
    # As text, 10-0 would come before 9-0.
    written = ["9-0", "9-9", "9-10", "10-0"]
    assert [str(position) for position in sorted(map(Position.parse, written))] == written


@given(_POSITIONS, st.integers(min_value=0, max_value=1000))
def test_going_on_keeps_the_epoch(position: Position, count: int) -> None:
    assert position.plus(count) == (position.epoch, position.seq + count)


@given(_POSITIONS)
def test_nothing_comes_before_all(position: Position) -> None:
    assert position >= BEFORE_ALL
    assert str(BEFORE_ALL) == "0-0"
