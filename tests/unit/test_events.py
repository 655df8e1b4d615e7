"""Entries of the log: JSON that is made once, on one line, and says what it was made of."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import (
    Chunk,
    Entry,
    EventType,
    SessionChanged,
    Start,
    Thought,
    new_entry,
    tells_deletion,
)
from app.domain.messages import AnswerError, Message, Role, Status, Usage
from app.domain.position import Position

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_NUMBER = st.integers(min_value=0, max_value=2**53)
_MESSAGES = st.builds(
    Message,
    message_id=_TEXT,
    session_id=_TEXT,
    role=st.sampled_from(Role),
    content=_TEXT,
    status=st.sampled_from(Status),
    is_complete=st.booleans(),
    attempt=_NUMBER,
    model=st.none() | _TEXT,
    created_at=_TEXT,
    completed_at=st.none() | _TEXT,
    error=st.none() | st.builds(AnswerError, _TEXT, _TEXT),
    usage=st.none() | st.builds(Usage, _NUMBER, _NUMBER),
)
_DATA = st.one_of(
    _MESSAGES,
    st.builds(Start, _TEXT, _NUMBER, _TEXT, _TEXT),
    st.builds(Chunk, _TEXT, _NUMBER, _NUMBER, _NUMBER, _TEXT),
    st.builds(SessionChanged, _TEXT, _TEXT, st.booleans()),
)


@given(_DATA)
def test_the_data_of_an_entry_is_one_line_whatever_it_says(
    data: Message | Start | Chunk | SessionChanged,
) -> None:
    """A publication separates entries by line feeds, and SSE ends a field at any line break."""
    made = new_entry(data)
    assert b"\n" not in made.data
    assert b"\r" not in made.data
    assert msgspec.json.decode(made.data, type=type(data)) == data


@pytest.mark.parametrize(
    "text", ["\n", "\r\n", "\r", "a\n\nb", '"', "\\", "\u2028\u2029", "\x85", "\x1e", "\U0001f469"]
)
def test_any_json_reader_finds_the_same_text(text: str) -> None:
    data = new_entry(Chunk("m", 1, 0, 0, text)).data
    assert json.loads(data)["chunk"] == text


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (
            Start("m", 2, "demo", "kept"),
            EventType.START,
            {
                "message_id": "m",
                "attempt": 2,
                "model": "demo",
                "content": "kept",
                "reasoning": None,
            },
        ),
        (
            Thought("m", 2, 5, "why"),
            EventType.REASONING,
            {"message_id": "m", "attempt": 2, "offset": 5, "chunk": "why"},
        ),
        (
            Chunk("m", 2, 3, 14, "text"),
            EventType.CHUNK,
            {"message_id": "m", "attempt": 2, "index": 3, "offset": 14, "chunk": "text"},
        ),
        (
            SessionChanged("s", "title"),
            EventType.SESSION,
            {"session_id": "s", "title": "title", "deleted": False},
        ),
    ],
)
def test_an_entry_says_what_the_contract_names(
    data: Start | Chunk | Thought | SessionChanged, kind: EventType, said: dict[str, Any]
) -> None:
    made = new_entry(data)
    assert made.type == kind.value == kind
    assert json.loads(made.data) == said


def test_a_message_has_every_member_of_the_contract() -> None:
    made = new_entry(
        Message(
            message_id="m",
            session_id="s",
            role=Role.USER,
            content="text",
            status=Status.COMPLETE,
            is_complete=True,
            attempt=0,
            model=None,
            created_at="2026-01-31T09:05:00.123Z",
        )
    )
    assert made.type == "message"
    assert set(json.loads(made.data)) == {
        "message_id", "session_id", "role", "content", "status", "is_complete", "attempt", "model",
        "created_at", "completed_at", "error", "usage", "reasoning",
    }  # fmt: skip


def test_a_form_is_made_once_for_each_encoder() -> None:
    entry = Entry(Position(7, 1), "chunk", b"{}")
    made: list[str] = []

    def one(encoded: Entry) -> bytes:
        made.append("one")
        return str(encoded.position).encode()

    def other(encoded: Entry) -> bytes:
        made.append("other")
        return encoded.data

    for _ in range(3):
        assert (entry.form(one), entry.form(other)) == (b"7-1", b"{}")
    assert made == ["one", "other"]


def test_an_empty_form_is_kept_as_well() -> None:
    entry = Entry(Position(7, 1), "chunk", b"{}")
    made: list[Entry] = []

    def nothing(encoded: Entry) -> bytes:
        made.append(encoded)
        return b""

    assert (entry.form(nothing), entry.form(nothing), len(made)) == (b"", b"", 1)


def test_entries_are_compared_by_what_the_log_holds() -> None:
    entry = Entry(Position(7, 1), "chunk", b"{}")
    same = Entry(Position(7, 1), "chunk", b"{}")
    same.form(lambda encoded: encoded.data)
    assert entry == same
    assert hash(entry) == hash(same)
    for other in (
        Entry(Position(7, 2), "chunk", b"{}"),
        Entry(Position(7, 1), "start", b"{}"),
        Entry(Position(7, 1), "chunk", b"[]"),
        (Position(7, 1), "chunk", b"{}"),
    ):
        assert entry != other


def test_a_name_of_an_entry_does_not_tell_what_was_said() -> None:
    made = new_entry(Chunk("m", 1, 0, 0, "a secret"))
    assert "secret" not in repr(Entry(Position(7, 1), made.type, made.data))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (SessionChanged("s", "", deleted=True), True),
        (SessionChanged("s", '{"deleted":true}'), False),
        (Chunk("m", 1, 0, 0, '"deleted":true'), False),
    ],
)
def test_a_deletion_is_told_by_its_entry(data: Chunk | SessionChanged, told: bool) -> None:
    made = new_entry(data)
    assert tells_deletion(Entry(Position(7, 1), made.type, made.data)) is told
