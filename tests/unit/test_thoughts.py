"""Reasoning on the page: runs that never have to be drawn again, whatever the pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.web.thoughts import Thoughts, runs_of

_PIECES = st.lists(st.text(min_size=1) | st.integers(1, 700).map("x".__mul__), max_size=12)


@given(_PIECES, st.integers(0, 12))
def test_a_page_that_comes_at_any_moment_is_drawn_as_a_fresh_one(
    pieces: list[str], came: int
) -> None:
    before, after = "".join(pieces[:came]), pieces[came:]
    shown = runs_of(before)
    thoughts = Thoughts(before)
    for piece in after:
        changed = thoughts.append(piece)
        assert list(changed) == sorted(changed)
        shown |= changed
    assert shown == runs_of("".join(pieces))
    assert "".join(shown.values()) == "".join(pieces)
    assert thoughts.characters == len("".join(pieces))


def test_the_cost_of_a_piece_does_not_grow_with_what_came_before() -> None:
    thoughts = Thoughts()
    drawn = [sum(map(len, thoughts.append(" word").values())) for _ in range(10_000)]
    assert max(drawn) < 300
    assert sum(drawn) / len(drawn) < 150
