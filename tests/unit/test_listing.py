"""What a search shows of the messages it found."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.db.search import Hit
from app.web.listing import found_in


def _shown(excerpt: str, query: str, *, begins: bool = False, ends: bool = False) -> str:
    said_at = datetime(2026, 1, 1, tzinfo=UTC)
    hit = Hit("s-1", "Title", "m-1", said_at, excerpt, begins, ends)
    (found,) = found_in([hit], query)
    (passage,) = found.passages
    return str(passage.excerpt)


@pytest.mark.parametrize(
    ("begins", "ends", "shown"),
    [
        (False, False, "one two <mark>three</mark> four five"),
        (True, False, "… two <mark>three</mark> four five"),
        (False, True, "one two <mark>three</mark> four …"),
        (True, True, "… two <mark>three</mark> four …"),
    ],
)
def test_a_passage_is_cut_between_words_and_says_so(begins: bool, ends: bool, shown: str) -> None:
    assert _shown("one two three\n four five", "three", begins=begins, ends=ends) == shown


def test_what_is_one_long_word_is_not_cut_away() -> None:
    assert _shown("a" * 80 + "b" + "a" * 79, "b", begins=True, ends=True) == (
        "… " + "a" * 80 + "<mark>b</mark>" + "a" * 79 + " …"
    )


def test_a_passage_reads_as_text() -> None:
    said = "## Heading\n\n- a **bold** `__init__` more\n> said 2 * 3 - 1"
    assert _shown(said, "said") == "Heading a bold __init__ more <mark>said</mark> 2 * 3 - 1"


def test_marks_that_were_looked_for_stay() -> None:
    assert _shown("a **bold** word", "**bold") == "a <mark>**bold</mark>** word"


def test_what_was_said_is_text_and_no_markup() -> None:
    assert _shown("<b>x</b> & y", "x") == "&lt;b&gt;<mark>x</mark>&lt;/b&gt; &amp; y"
