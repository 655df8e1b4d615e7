"""A page cursor means what it was made from, and nothing else is one."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.db.cursors import SessionCursor
from app.domain.errors import InvalidCursor

MOMENTS = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001  Hypothesis adds the zone itself
    max_value=datetime(2286, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
SESSION_IDS = st.from_regex(r"\A[A-Za-z0-9-]{1,64}\Z")


def encoded(plain: bytes) -> str:
    return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()


@given(MOMENTS, SESSION_IDS)
def test_a_cursor_is_read_back_exactly(updated_at: datetime, session_id: str) -> None:
    cursor = SessionCursor(updated_at, session_id)

    assert SessionCursor.parse(str(cursor)) == cursor
    assert str(cursor).replace("-", "").replace("_", "").isalnum()


@given(st.text(max_size=120))
@example("")
@example(encoded(b"1.s") + "=")
@example(encoded(b"1.ss")[:-1] + "x")
@example(encoded(b"1.s") + "\n")
@example("!" + encoded(b"1.s"))
@example(encoded(b"01.s"))
@example(encoded(b"-1.s"))
@example(encoded("\u0661.s".encode()))
@example(encoded(b"9" * 17 + b".s"))
@example(encoded(b"1."))
@example(encoded(b"1.s\n"))
@example(encoded(b"1." + b"s" * 65))
@example("\ud800")
def test_what_was_not_made_here_is_refused(written: str) -> None:
    with pytest.raises(InvalidCursor):
        SessionCursor.parse(written)
