"""The checker is checked: each broken transcript and each broken record is called what it is."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.checker import Checker
from tests.chaos.outbox import Stored, check_records, check_shown
from tests.chaos.report import Breach, Report, Required, verdict

_WHOLE = "1 2 3 4 5"
_Log = list[tuple[str, dict[str, Any]]]


def _message(content: str, status: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "message", {
        "message_id": "a",
        "content": content,
        "reasoning": None,
        "status": status,
        "attempt": 1,
        "is_complete": status in {"complete", "cancelled", "failed"},
        "error": None,
    } | fields


def _start(attempt: int = 1, content: str = "") -> tuple[str, dict[str, Any]]:
    return "start", {
        "message_id": "a",
        "attempt": attempt,
        "content": content,
        "reasoning": None,
    }


def _chunk(offset: int, text: str, attempt: int = 1) -> tuple[str, dict[str, Any]]:
    return "chunk", {"message_id": "a", "attempt": attempt, "offset": offset, "chunk": text}


def _history(number: int, *messages: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "history", {"messages": list(messages), "position": f"7-{number}", "reason": "epoch"}


_QUEUED = _message("", "queued", attempt=0)
_WHOLE_LOG: _Log = [
    _QUEUED,
    _start(),
    _chunk(0, "1 2"),
    _start(2, "1 2"),
    _chunk(3, " 3 4", 2),
    _chunk(7, " 5", 2),
    _message(_WHOLE, "complete", attempt=2),
]


def _read(log: _Log, *, ids: list[int] | None = None, stopped: bool = False) -> Report:
    """Show a client these events under positions that follow each other, or under ``ids``."""
    report = Report()
    checker = Checker(report.breach)
    checker.expect("a", _WHOLE)
    # What stands at 0-0 is given the whole state first.
    checker.apply("7-0", *_history(0))
    # A client writes into what it is given.
    events = copy.deepcopy(log)
    for number, (kind, data) in zip(ids or range(1, len(log) + 1), events, strict=True):
        checker.apply(f"7-{number}", kind, data)
    checker.ended("a", stopped=stopped)
    return report


def test_what_is_as_it_must_be_is_not_called_broken() -> None:
    assert _read(_WHOLE_LOG).breaches == []
    stopped: _Log = [_QUEUED, _start(), _chunk(0, "1 2"), _message("1 2 ", "cancelled")]
    assert _read(stopped, stopped=True).breaches == []
    exhausted = {"code": "attempts_exhausted", "detail": "Tried three times"}
    failed: _Log = [_QUEUED, _start(), _message("", "failed", error=exhausted)]
    assert _read(failed).breaches == []
    # Redis was emptied: the text goes back to what is stored, and everybody is told.
    lost: _Log = [
        *_WHOLE_LOG[:3],
        _history(4, _message("", "streaming")[1]),
        _start(2),
        _chunk(0, _WHOLE, 2),
        _WHOLE_LOG[-1],
    ]
    assert _read(lost).breaches == []


_BROKEN: dict[str, tuple[Breach, _Log]] = {
    "a state shows an attempt, and an earlier one begins": (
        Breach.TWO_VOICES,
        [_QUEUED, _history(2, _message("", "streaming", attempt=2)[1]), *_WHOLE_LOG[1:]],
    ),
    "a word is left out live": (
        Breach.LOST,
        [_QUEUED, _start(), _chunk(0, "1 2"), _chunk(3, " 4 5"), _message(_WHOLE, "complete")],
    ),
    "a word is left out of the end": (
        Breach.LOST,
        [_QUEUED, _start(), _message("1 2 4 5", "complete")],
    ),
    "the end looks whole and is not": (
        Breach.LOST,
        [_QUEUED, _start(), _message("1 2 3", "complete")],
    ),
    "the end has less than was shown": (
        Breach.LOST,
        [_QUEUED, _start(), _chunk(0, "1 2 3"), _message("1 2", "cancelled")],
    ),
    "a word is said twice": (
        Breach.REPEATED,
        [_QUEUED, _start(), _chunk(0, "1 2"), _chunk(3, " 2 3 4 5"), _message(_WHOLE, "complete")],
    ),
    "a chunk begins before the last one's end": (
        Breach.REPEATED,
        [_QUEUED, _start(), _chunk(0, "1 2"), _chunk(1, " 2 3 4 5"), _message(_WHOLE, "complete")],
    ),
    "words have changed places": (
        Breach.REORDERED,
        [_QUEUED, _start(), _chunk(0, "1 3 2 4 5"), _message(_WHOLE, "complete")],
    ),
    "an attempt that is over speaks": (
        Breach.TWO_VOICES,
        [*_WHOLE_LOG[:4], _chunk(3, " 3 4", 1), *_WHOLE_LOG[5:]],
    ),
    "an attempt that is over begins": (
        Breach.TWO_VOICES,
        [*_WHOLE_LOG[:4], _start(1, "1 2"), _start(2, "1 2"), *_WHOLE_LOG[4:]],
    ),
    "two say different things in one place": (
        Breach.TWO_VOICES,
        [_QUEUED, _start(), _chunk(0, "1 2"), _chunk(2, "9"), _message(_WHOLE, "complete")],
    ),
    "it ends twice, in different ways": (
        Breach.TWO_VOICES,
        [*_WHOLE_LOG, _message("1 2", "cancelled")],
    ),
    "it begins behind what was shown": (
        Breach.HOLE,
        [_QUEUED, _start(), _chunk(2, "2 3"), _message(_WHOLE, "complete")],
    ),
    "it does not end": (Breach.MISSED_END, _WHOLE_LOG[:-1]),
    "its end is forgotten": (
        Breach.MISSED_END,
        [*_WHOLE_LOG, _history(8, _message("1", "streaming")[1]), _WHOLE_LOG[-1]],
    ),
    "it fails for a reason of ours": (
        Breach.OTHER,
        [_QUEUED, _message("", "failed", error={"code": "internal_error", "detail": ""})],
    ),
    "it is of a kind that nobody knows": (Breach.OTHER, [("surprise", {}), *_WHOLE_LOG]),
}


@pytest.mark.parametrize("name", _BROKEN)
def test_a_broken_transcript_is_called_what_it_is(name: str) -> None:
    kind, log = _BROKEN[name]
    report = _read(log)
    assert report.breached[kind] > 0, report.breaches
    assert f"{f'  {kind}':<48} {report.breached[kind]}" in report.text()


def test_positions_that_do_not_follow_each_other_are_holes_or_repeats() -> None:
    assert _read(_WHOLE_LOG, ids=[1, 2, 3, 5, 6, 7, 8]).breached[Breach.HOLE] > 0
    assert _read(_WHOLE_LOG, ids=[1, 2, 3, 3, 4, 5, 6]).breached[Breach.REPEATED] > 0


def test_a_stop_that_did_not_hold_is_told() -> None:
    assert _read(_WHOLE_LOG, stopped=True).breached == {Breach.DISOBEYED: 1}


_STORED = [
    Stored("q", "s", "user", "complete", "/count 5", 0),
    Stored("a", "s", "assistant", "complete", _WHOLE, 2),
]


def _records() -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = [
        {"eventType": "SESSION_STARTED", "sessionId": "s", "messageId": None},
        {"eventType": "CHAT_MESSAGE", "messageId": "q", "content": "/count 5"},
        {"eventType": "STREAM_STARTED", "messageId": "a", "attempt": 1},
        {"eventType": "STREAM_RECOVERED", "messageId": "a", "attempt": 2},
        {"eventType": "STREAM_COMPLETED", "messageId": "a", "attempt": 2},
        {"eventType": "CHAT_MESSAGE", "messageId": "a", "content": _WHOLE},
    ]
    return [{"eventId": str(number), **record} for number, record in enumerate(told)]


def _recorded(change: Callable[[list[dict[str, Any]]], object] = lambda _: None) -> Report:
    report, records = Report(), _records()
    change(records)
    check_records(records, _STORED, report)
    return report


def test_each_event_that_is_missing_is_told() -> None:
    assert _recorded().breaches == []
    for place in range(len(_records())):
        report = _recorded(lambda records, place=place: records.pop(place))  # type: ignore[misc]
        assert report.breached == {Breach.EVENT_MISSING: 1}, report.breaches


def test_each_event_that_is_doubled_is_told() -> None:
    for place in range(len(_records())):
        report = _recorded(
            lambda records, place=place: records.append(  # type: ignore[misc]
                records[place] | {"eventId": "another"}
            )
        )
        assert report.breached == {Breach.EVENT_DOUBLED: 1}, report.breaches
    assert _recorded(lambda records: records.append(records[0])).breached[Breach.EVENT_DOUBLED]


def test_what_is_stored_otherwise_than_shown_or_without_an_end_is_told() -> None:
    report = Report(finals={"a": ("complete", _WHOLE)})
    check_shown(_STORED, report)
    assert report.breaches == []
    check_shown([_STORED[1]._replace(content="1 2 3 4")], report)
    check_shown([_STORED[1]._replace(status="streaming")], report)
    assert report.breached == {Breach.LOST: 1, Breach.MISSED_END: 1}


def test_a_time_is_judged_by_the_share_that_was_in_time() -> None:
    assert verdict([], Required(1.0)) == "not measured"
    assert verdict([0.5] * 99 + [2.0], Required(1.0, 0.99)) == "PASS (99.0%)"
    assert verdict([0.5] * 99 + [2.0], Required(1.0)) == "FAIL (99.0%)"


def test_a_pause_is_measured_from_what_came_last() -> None:
    report = Report()
    with report.doing("worker stopped"):
        report.interrupt({"s": "worker-1", "t": "worker-1", "u": "worker-1"})
    now = time.monotonic()
    # Its worker went on writing for an hour; its reader had been given nothing for an hour.
    report.gone_on("s", last_chunk=now + 3600)
    report.gone_on("t", last_chunk=now - 3600)
    report.gone_on("u", last_chunk=now, answered=True)
    writing, waiting = report.failover_seconds["worker stopped"]
    assert writing < 0 <= waiting < 3600
    assert "worker stopped: p50" in report.text()
