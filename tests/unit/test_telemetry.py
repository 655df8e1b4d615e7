"""Logs say one line an event, in one form, and never more than they were given."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from app.telemetry import configure_logging, create_metrics
from tests.support.logs import logging_restored

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    with logging_restored():
        yield


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    written = capsys.readouterr()
    assert written.out == "", "stdout belongs to what a command prints"
    return written.err.splitlines()


def test_production_writes_json_from_both_kinds_of_logger(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(environment="production", level="info")
    structlog.get_logger("app").info("answer ended", message_id="m-1")
    logging.getLogger("uvicorn.error").warning("shutting %s", "down")
    ours, theirs = (json.loads(line) for line in lines(capsys))
    assert (ours["event"], ours["message_id"], ours["level"]) == ("answer ended", "m-1", "info")
    assert (theirs["event"], theirs["level"]) == ("shutting down", "warning")
    assert theirs["logger"] == "uvicorn.error"
    assert ours["timestamp"].endswith("Z")


def test_an_exception_is_one_line_of_json_without_local_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(environment="production", level="info")
    _fail("a-private-word")
    logging.getLogger("other").error("failed", exc_info=_failure("a-private-word"))
    written = lines(capsys)
    assert len(written) == 2
    for line in written:
        assert "ZeroDivisionError" in json.loads(line)["exception"]
    assert "a-private-word" not in "".join(written)


def test_development_shows_no_local_variables_and_no_colour_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(environment="development", level="info")
    _fail("a-private-word")
    written = "\n".join(lines(capsys))
    assert "ZeroDivisionError" in written
    assert "a-private-word" not in written
    assert "\x1b[" not in written


def test_libraries_that_log_what_was_said_are_held_back_at_every_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(environment="production", level="debug")
    for name in ("sqlalchemy.engine.Engine", "openai._base_client", "httpx", "httpcore.http11"):
        logging.getLogger(name).info("what was said")
    logging.getLogger("uvicorn.access").info("GET /?ticket=secret")
    structlog.get_logger("app").debug("ours")
    assert [json.loads(line)["event"] for line in lines(capsys)] == ["ours"]


def test_the_level_holds_for_both_kinds_of_logger(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(environment="production", level="warning")
    structlog.get_logger("app").info("too quiet")
    logging.getLogger("other").info("too quiet")
    assert lines(capsys) == []


@pytest.mark.parametrize(("level", "told"), [("info", 1), ("warning", 0)])
def test_text_that_is_no_utf8_is_a_line_and_no_traceback(
    capsys: pytest.CaptureFixture[str], level: str, told: int
) -> None:
    """Any client may send it in a WebSocket, as often as it likes."""
    configure_logging(environment="production", level=level)
    configure_logging(environment="production", level=level)
    try:
        b"\xff".decode()
    except UnicodeDecodeError:
        logging.getLogger("uvicorn.error").exception("Invalid UTF-8 sequence received from client.")
    written = [json.loads(line) for line in lines(capsys)]
    assert [line["level"] for line in written] == ["info"] * told
    assert all("exception" not in line for line in written)


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging(environment="production", level="info")
    with open(os.devnull, "w") as gone:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", gone)
    structlog.get_logger("app").info("into the void")
    logging.getLogger("other").info("into the void")


def test_metrics_are_separate_in_each_set() -> None:
    first, second = create_metrics(), create_metrics()
    first.streams_open.labels(transport="sse").inc()
    body, content_type = first.exposition()
    assert b'throughline_streams_open{transport="sse"} 1.0' in body
    assert content_type.startswith("text/plain")
    assert b"transport=" not in second.exposition()[0]


def test_the_attribute_is_the_name_and_the_docs_list_it() -> None:
    metrics = create_metrics()
    documented = OPERATIONS.read_text("utf-8")
    exposed = {family.name for family in metrics.registry.collect()}
    for attribute in metrics.__slots__:
        if attribute == "registry":
            continue
        assert f"throughline_{attribute}" in exposed
        kind = type(getattr(metrics, attribute)).__name__.lower()
        suffix = "_total" if kind == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in getattr(metrics, attribute)._labelnames)
        assert f"| `throughline_{attribute}{suffix}` | {kind} | {labels or '–'} |" in documented


def _fail(private: str) -> None:
    try:
        _divide(private)
    except ZeroDivisionError:
        structlog.get_logger("app").exception("failed")


def _failure(private: str) -> ZeroDivisionError:
    try:
        _divide(private)
    except ZeroDivisionError as error:
        return error
    raise AssertionError


def _divide(private: str) -> float:
    return len(private) / 0
