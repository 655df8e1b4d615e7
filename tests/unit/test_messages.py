"""What may be said: bounds in code points, and nothing that a part further down cannot store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import ValidationFailed
from app.domain.messages import (
    CLIENT_MESSAGE_ID_MAX_CHARACTERS,
    MESSAGE_MAX_CHARACTERS,
    TITLE_MAX_CHARACTERS,
    Status,
    check_client_message_id,
    check_message,
    check_session_id,
    check_title,
    storable,
    timestamp,
    title_from_question,
)

_ANY_TEXT = st.text(st.characters(), max_size=300)
"""With lone surrogates and NUL: a JSON body may carry either."""

_WIDE = "\U0001f469"
"""One code point, two UTF-16 units, four bytes in UTF-8."""

_CHECKS: list[tuple[str, Callable[[str], str], int]] = [
    ("message", check_message, MESSAGE_MAX_CHARACTERS),
    ("title", check_title, TITLE_MAX_CHARACTERS),
    ("client_message_id", check_client_message_id, CLIENT_MESSAGE_ID_MAX_CHARACTERS),
]


def test_the_bounds_are_those_of_the_contract() -> None:
    assert (MESSAGE_MAX_CHARACTERS, TITLE_MAX_CHARACTERS) == (5000, 200)


@pytest.mark.parametrize(("name", "check", "maximum"), _CHECKS)
class TestText:
    def test_white_space_around_is_no_part_of_it(
        self, name: str, check: Callable[[str], str], maximum: int
    ) -> None:
        assert check(" \t\r\n\u3000two  words\u2028\n ") == "two  words"

    @pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0\u2003", "\r\n" * 6000])
    def test_nothing_but_white_space_is_nothing(
        self, name: str, check: Callable[[str], str], maximum: int, text: str
    ) -> None:
        with pytest.raises(ValidationFailed, match=rf"^{name} must not be empty$"):
            check(text)

    @pytest.mark.parametrize("character", ["a", "é", "中", _WIDE])
    def test_the_bound_counts_code_points(
        self, name: str, check: Callable[[str], str], maximum: int, character: str
    ) -> None:
        assert check(character * maximum) == character * maximum
        with pytest.raises(ValidationFailed, match=f"{name} must have at most {maximum} "):
            check(character * (maximum + 1))

    def test_the_bound_counts_after_trimming(
        self, name: str, check: Callable[[str], str], maximum: int
    ) -> None:
        assert check(f"  {'a' * maximum}\n") == "a" * maximum

    def test_nul_is_refused(self, name: str, check: Callable[[str], str], maximum: int) -> None:
        for text in ("\x00", "a\x00", "\x00a", "a\x00b"):
            with pytest.raises(ValidationFailed, match=f"{name} must not contain .*NUL"):
                check(text)

    @pytest.mark.parametrize("code", [0xD800, 0xDBFF, 0xDC00, 0xDFFF])
    def test_a_lone_surrogate_is_refused(
        self, name: str, check: Callable[[str], str], maximum: int, code: int
    ) -> None:
        surrogate = chr(code)
        for text in (surrogate, f"a{surrogate}", f"{surrogate}a"):
            with pytest.raises(ValidationFailed, match=f"{name} must not contain lone surrogates"):
                check(text)

    def test_what_is_refused_is_not_repeated(
        self, name: str, check: Callable[[str], str], maximum: int
    ) -> None:
        """A detail goes into logs; what somebody wrote does not."""
        with pytest.raises(ValidationFailed) as refused:
            check("a secret\x00")
        assert "secret" not in refused.value.detail


@given(_ANY_TEXT)
def test_what_is_accepted_can_be_stored_and_is_accepted_again(text: str) -> None:
    try:
        accepted = check_message(text)
    except ValidationFailed:
        return
    assert accepted == accepted.encode().decode() == check_message(accepted)
    assert "\x00" not in accepted
    assert 1 <= len(accepted) <= MESSAGE_MAX_CHARACTERS


@pytest.mark.parametrize("session_id", ["a", "A-9", "-", "-" * 64, "0" * 64])
def test_a_session_id_may_be_chosen(session_id: str) -> None:
    assert check_session_id(session_id) == session_id


@pytest.mark.parametrize(
    "session_id",
    ["", "a" * 65, "a_b", "a b", "a\n", "\na", "{a}", "a:b", "a/b", "..", "é", "１", "a\x00"],
)
def test_a_session_id_has_one_form(session_id: str) -> None:
    """It stands in Redis keys (where braces matter), channels and paths."""
    with pytest.raises(ValidationFailed, match="session_id"):
        check_session_id(session_id)


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("Hello", "Hello"),
        ("a  b\t c", "a b c"),
        ("the first line\nand the second", "the first line"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 60 + "…"),
        ("word " * 12 + "end", ("word " * 12).strip() + "…"),
        (f"{'a' * 50} {'b' * 30}", "a" * 50 + "…"),
        (_WIDE * 61, _WIDE * 60 + "…"),
        ("windows\r\nline", "windows"),
    ],
)
def test_a_title_is_made_of_the_first_question(question: str, title: str) -> None:
    assert title_from_question(question) == title


@given(_ANY_TEXT)
def test_a_title_of_any_question_may_be_set(text: str) -> None:
    try:
        question = check_message(text)
    except ValidationFailed:
        return
    title = title_from_question(question)
    assert check_title(title) == title
    assert len(title) <= 61
    assert "\n" not in title


@pytest.mark.parametrize(
    ("piece", "stored"),
    [
        ("", ""),
        ("plain 中 \U0001f469", "plain 中 \U0001f469"),
        ("a\x00b", "a\ufffdb"),
        ("\ud83d", "\ufffd"),
        ("\ud83d\ude00", "\ufffd\ufffd"),
        ("\x00\x00\udfff", "\ufffd\ufffd\ufffd"),
        ("\u200b\ufeff\u2028\x07", "\u200b\ufeff\u2028\x07"),
    ],
)
def test_a_piece_of_a_model_is_made_storable(piece: str, stored: str) -> None:
    assert storable(piece) == stored


@given(_ANY_TEXT)
def test_storing_keeps_every_offset(piece: str) -> None:
    stored = storable(piece)
    assert len(stored) == len(piece)
    assert stored == storable(stored) == stored.encode().decode()
    assert "\x00" not in stored


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (datetime(2026, 1, 31, 9, 5, 0, 123456, tzinfo=UTC), "2026-01-31T09:05:00.123Z"),
        (datetime(2026, 1, 31, 9, 5, tzinfo=UTC), "2026-01-31T09:05:00.000Z"),
        (datetime(2026, 1, 31, 9, 5, 0, 999999, tzinfo=UTC), "2026-01-31T09:05:00.999Z"),
        (
            datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            "2025-12-31T20:00:00.000Z",
        ),
    ],
)
def test_a_moment_is_written_in_utc_with_milliseconds(moment: datetime, written: str) -> None:
    assert timestamp(moment) == written


@pytest.mark.parametrize("status", list(Status))
def test_three_states_are_final(status: Status) -> None:
    assert status.is_final == (status.value in {"complete", "cancelled", "failed"})
