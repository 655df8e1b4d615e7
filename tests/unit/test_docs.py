"""The documents say what the code does: codes, fields, routes, keys, scripts.

Settings are held by ``test_config.py``, and the table of metrics by ``test_telemetry.py``.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import msgspec
import pytest

from app import cli, setting_rules
from app.config import Settings
from app.domain import frames
from app.domain.errors import ChatError
from app.domain.events import Chunk, EventType, SessionChanged, Start
from app.domain.messages import Message, Role, Session, Status
from app.models.demo import script
from app.models.registry import ModelDescription
from app.streams import keys
from app.web import problems, ws, ws_frames
from app.web.condition import Condition
from app.web.health import Health
from app.web.openapi import known_problems, openapi_document
from app.web.sse import StreamError
from tests.support.documents import ROOT, Document, fields_of, present_documents, spans_of
from tests.support.sources import nodes

PROTOCOL = Document(ROOT / "docs" / "protocol.md")
ARCHITECTURE = Document(ROOT / "docs" / "architecture.md")


class TestProblems:
    def test_every_code_is_listed_with_its_status_and_no_other(self) -> None:
        known = {
            kind.code: int(kind.http_status)
            for kind in known_problems()
            if kind.__module__.startswith("app.")
        }
        known |= {code: int(status) for status, (code, _) in problems._BY_STATUS.items()}
        known |= {ChatError.code: int(HTTPStatus.INTERNAL_SERVER_ERROR)}
        listed = PROTOCOL.section("Errors").table("code", "status")
        assert {spans_of(row[0])[0]: int(row[1]) for row in listed} == known

    def test_every_reason_for_which_an_answer_fails_is_listed_and_no_other(self) -> None:
        listed = {spans_of(row[0])[0] for row in PROTOCOL.table("code", "meaning")}
        assert listed == set(_answer_codes())

    def test_every_member_of_a_problem_is_named(self) -> None:
        document = problems.problem_document(
            problems.problem_of(ChatError()), instance="/", request_id="1"
        )
        said = set(PROTOCOL.section("Errors").spans)
        assert json.loads(document).keys() <= said


def _answer_codes() -> Iterator[str]:
    """Give the codes of every AnswerFailed, ModelFailed and AnswerError, where they are written."""
    for node in nodes():
        match node:
            case ast.Call(
                func=ast.Name(id="AnswerFailed" | "AnswerError" | "ModelFailed"),
                args=[ast.Constant(value=str(code)), *_],
            ):
                yield code
            case ast.Assign(
                targets=[ast.Tuple(elts=[ast.Name(id="code"), ast.Name(id="detail")])],
                value=ast.Tuple(elts=[ast.Constant(value=str(code)), _]),
            ):
                yield code
            case _:
                pass


class TestEvents:
    @pytest.mark.parametrize(
        ("name", "struct"),
        [
            (EventType.START, Start),
            (EventType.CHUNK, Chunk),
            (EventType.SESSION, SessionChanged),
            ("welcome", frames.Welcome),
            ("history", frames.History),
            ("error", StreamError),
            ("bye", frames.Bye),
        ],
    )
    def test_an_event_is_listed_with_its_fields_in_order(
        self, name: str, struct: type[msgspec.Struct]
    ) -> None:
        rows = {spans_of(row[0])[0]: row for row in PROTOCOL.table("type", "data")}
        assert fields_of(spans_of(rows[name][1])[0]) == list(struct.__struct_fields__)

    def test_the_table_has_each_event_and_control_frame_and_nothing_else(self) -> None:
        control = {"welcome", "history", "error", "bye"}
        listed = [spans_of(row[0])[0] for row in PROTOCOL.table("type", "data")]
        assert sorted(listed) == sorted({*EventType} | control)

    @pytest.mark.parametrize(("label", "struct"), [("Message", Message), ("Session", Session)])
    def test_an_object_is_described_with_its_fields_in_order(
        self, label: str, struct: type[msgspec.Struct]
    ) -> None:
        written = re.search(rf"^\*\*{label}\*\*: `([^`]+)`", PROTOCOL.text, re.MULTILINE)
        assert written is not None
        assert fields_of(written[1]) == list(struct.__struct_fields__)

    @pytest.mark.parametrize(
        "words", [Status, Role, Condition, frames.HistoryReason, frames.ByeReason]
    )
    def test_every_word_of_the_vocabulary_is_there(self, words: type[Any]) -> None:
        assert {str(word) for word in words} <= set(PROTOCOL.spans)

    def test_the_version_is_that_of_the_code(self) -> None:
        assert PROTOCOL.text.startswith(f"# Protocol, version {frames.PROTOCOL_VERSION}\n")


class TestInterface:
    def test_every_route_of_the_schema_is_listed_and_no_other(self) -> None:
        paths = openapi_document("0")["paths"]
        known = {
            (method.upper(), path)
            for path, item in paths.items()
            for method in item
            if method != "parameters"
        }
        spans = [
            span for row in PROTOCOL.section("REST").table("call") for span in spans_of(row[0])
        ]
        listed = {
            (method, path.partition("?")[0])
            for method, _, path in (span.partition(" ") for span in spans)
            if method.isupper()
        }
        assert listed == known

    @pytest.mark.parametrize(
        ("member", "struct"), [("components", Health), ("items", ModelDescription)]
    )
    def test_what_a_body_holds_is_named(self, member: str, struct: type[msgspec.Struct]) -> None:
        bodies = [
            span
            for row in PROTOCOL.section("REST").table("call", "answer")
            for span in spans_of(row[1])
            if span.startswith("{") and member in span
        ]
        assert any(
            all(re.search(rf"\b{field}\b", body) for field in struct.__struct_fields__)
            for body in bodies
        ), bodies

    def test_every_close_code_is_listed(self) -> None:
        known = {kind.close_code for kind in known_problems() if kind.__module__.startswith("app.")}
        known |= set(ws_frames.CLOSE_CODES.values())
        known |= {ws._BAD_FRAME, ws._NOT_AUTHENTICATED, ws._TOO_LARGE, ws._TOO_SLOW, ws._BUG}
        listed = {int(row[0]) for row in PROTOCOL.section("WebSocket").table("close code")}
        assert known <= listed
        # uvicorn's own, for what has not ended when the node does.
        assert listed - known <= {1012}

    @pytest.mark.parametrize(
        "frame",
        [ws_frames.ChatFrame, ws_frames.CancelFrame, ws_frames.AuthFrame, ws_frames.PingFrame],
    )
    def test_every_frame_of_a_client_is_listed_with_its_fields(
        self, frame: type[msgspec.Struct]
    ) -> None:
        listed = [
            fields_of(spans_of(row[0])[0])
            for row in PROTOCOL.section("WebSocket").table("from the client")
            if f'"{frame.__struct_config__.tag}"' in row[0]
        ]
        assert listed == [["type", *frame.__struct_fields__]]

    def test_every_command_exists(self) -> None:
        parser = cli._parser()
        known = {
            name
            for action in parser._actions
            if isinstance(action.choices, dict)
            for name in action.choices
        }
        named = {
            words[1]
            for one in present_documents()
            for span in one.spans
            if (words := span.split())[0] == "throughline" and len(words) > 1
        }
        assert named <= known
        described = PROTOCOL.section("Commands").spans
        assert known <= {span.removeprefix("throughline ").split()[0] for span in described}


class TestDemo:
    def test_every_command_of_the_demo_model_is_listed_and_no_other(self) -> None:
        listed = {spans_of(row[0])[0] for row in PROTOCOL.table("command", "answer")}
        assert listed == {form for form, _ in script._USAGE.values()} | {"/help"}

    def test_what_is_said_to_be_missing_is_missing(self) -> None:
        spans = PROTOCOL.section("Not in this version").table("")
        later = [span for row in spans for span in spans_of(row[0])]
        routes = {span.partition(" ")[2] for span in later if span.startswith(("GET ", "POST "))}
        assert routes
        assert not routes & {*openapi_document("0")["paths"]}
        assert not {span.lower() for span in later if span.isupper()} & {*Settings.model_fields}
        assert not {*later} & {*Chunk.__struct_fields__}
        for address in (span for span in later if span.endswith("://")):
            with pytest.raises(ValueError, match="must be an address"):
                setting_rules.redis_address(f"{address}host")

    def test_commands_that_are_said_to_be_missing_are_missing(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = PROTOCOL.section("Not in this version").table("")
        (commands,) = (spans_of(row[0]) for row in rows if row[0].startswith("`throughline"))
        for command in commands:
            with pytest.raises(SystemExit):
                cli._parser().parse_args(command.removeprefix("throughline ").split())
            assert "invalid choice" in capsys.readouterr().err, command


class TestRedis:
    def test_every_key_is_in_the_table_and_no_other(self) -> None:
        channels = {_named(keys.channel), _named(keys.worker_channel)}
        known = (
            keys.PERMANENT
            | {keys.RECONCILER, keys.HOUSEKEEPER, keys.MODELS, keys.REVOKED, keys.REVOKED_VERSION}
            | {
                _named(function)
                for name, function in inspect.getmembers(keys, inspect.isfunction)
                if name != "session_of_channel"
            }
        )
        listed = {spans_of(row[0])[0]: row for row in ARCHITECTURE.table("key", "kind")}
        assert set(listed) == known - {_named(keys.worker_channel)}
        assert channels <= set(ARCHITECTURE.section("Keys").spans)
        for key, row in listed.items():
            assert (key in keys.PERMANENT) == row[3].startswith("none"), row

    def test_every_script_is_listed_with_its_outcomes(self) -> None:
        listed = {spans_of(row[0])[0]: row for row in ARCHITECTURE.table("script", "from")}
        scripts = {path.stem: path for path in (ROOT / "app" / "streams" / "lua").glob("*.lua")}
        del scripts["log"], scripts["queue"]  # put before the others
        assert set(listed) == set(scripts)
        for name, path in scripts.items():
            outcomes = set(re.findall(r"return \{? ?'([A-Z]+)'", path.read_text("utf-8")))
            said = {span for span in spans_of(listed[name][3]) if span.isupper()}
            # One that can only say OK says nothing.
            assert said == outcomes - ({"OK"} if outcomes == {"OK"} else set()), name


def _named(function: Any) -> str:
    values = {
        "session_id": "sid",
        "message_id": "<message_id>",
        "node_id": "<node_id>",
        "subject": "subject",
        "bucket": "<bucket>",
        "digest": "<digest>",
        "address": "<address>",
    }
    named: str = function(*(values[name] for name in inspect.signature(function).parameters))
    return named
