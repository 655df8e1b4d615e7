"""What is not of the documented form: a problem with its code, nothing stored, no traceback."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio

from tests.support.web import WebNode, ask, serving, token

pytestmark = pytest.mark.asyncio(loop_scope="module")

_JSON = {"Content-Type": "application/json"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_LIMIT = 64 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebNode]:
    async with serving(tmp_path_factory.mktemp("node"), worker=False) as node:
        async with node.client_of("somebody-else") as other:
            await ask(other, "a secret", session_id="theirs")
        async with node.client() as own:
            assert (await own.post("/api/sessions", json={"session_id": "mine"})).is_success
        yield node


class Bad(NamedTuple):
    """One request and what it is answered."""

    name: str
    method: str
    path: str
    status: int
    code: str
    body: bytes | None = None
    headers: dict[str, str] | None = None


def _asking(name: str, body: object, code: str = "validation_failed", status: int = 400) -> Bad:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Bad(f"ask: {name}", "POST", "/api/chat", status, code, raw, _JSON)


def _sending(name: str, status: int, code: str, headers: dict[str, str]) -> Bad:
    body = b'{"message": "x", "client_message_id": "one"}'
    return Bad(f"ask: {name}", "POST", "/api/chat", status, code, body, headers)


def _form(name: str, body: bytes, path: str = "/chat", status: int = 400) -> Bad:
    code = {400: "validation_failed", 404: "not_found"}[status]
    return Bad(f"form: {name}", "POST", path, status, code, body, _FORM)


def _session(
    name: str,
    body: bytes,
    code: str = "validation_failed",
    status: int = 400,
    *,
    rename: str | None = None,
) -> Bad:
    method, path = ("POST", "/api/sessions") if rename is None else ("PATCH", rename)
    return Bad(f"session: {name}", method, path, status, code, body, _JSON)


def _getting(name: str, path: str, code: str, status: int = 400) -> Bad:
    return Bad(name, "GET", path, status, code)


def _unauthenticated(name: str, authorization: str) -> Bad:
    return Bad(
        f"credential: {name}",
        "GET",
        "/api/sessions",
        401,
        "unauthenticated",
        None,
        {"Authorization": authorization},
    )


def _nested_header() -> str:
    """A token whose header alone would exhaust the stack of a naive parser."""
    header = base64.urlsafe_b64encode(b"[" * 4000).rstrip(b"=").decode()
    return f"{header}.e30.c2ln"


QUESTIONS = [
    _asking("no body", b""),
    _asking("empty", {"message": ""}),
    _asking("blank", {"message": " \t\r\n\u2003"}),
    _asking("5001 characters", {"message": "x" * 5001}),
    _asking("5001 code points beyond the BMP", {"message": "😀" * 5001}),
    _asking("NUL", {"message": "a\x00b"}),
    _asking("a lone surrogate, escaped", b'{"message": "a\\ud800b"}'),
    _asking("surrogates the wrong way round", b'{"message": "\\udc00\\ud800"}'),
    _asking("a lone surrogate, encoded", '{"message": "\ud800"}'.encode("utf-8", "surrogatepass")),
    _asking("invalid UTF-8", b'{"message": "\xff\xfe"}'),
    _asking("UTF-16", '{"message": "x"}'.encode("utf-16")),
    _asking("a byte order mark", b'\xef\xbb\xbf{"message": "x"}'),
    _asking("half of it", b'{"message": "x"'),
    _asking("something after it", b'{"message": "x"} {}'),
    _asking("not JSON", b"message=x"),
    _asking("NaN", b'{"message": NaN}'),
    _asking("null", b"null"),
    _asking("an array", [{"message": "x"}]),
    _asking("a string", '"x"'),
    _asking("a number for the message", {"message": 1}),
    _asking("null for the message", {"message": None}),
    _asking("an object for the message", {"message": {}}),
    _asking("no message", {"session_id": "mine"}),
    _asking("an unknown field", {"message": "x", "colour": "red"}),
    _asking("the same field twice", b'{"message": "x", "message": "y"}'),
    _asking("deep nesting", b'{"message": ' + b"[" * 60_000),
    _asking("deep nesting in an unknown field", b'{"a": ' + b'{"a": ' * 10_000),
    _asking("a session id with other characters", {"message": "x", "session_id": "a/b"}),
    _asking("an empty session id", {"message": "x", "session_id": ""}),
    _asking("a session id of 65", {"message": "x", "session_id": "a" * 65}),
    _asking("a session id of other digits", {"message": "x", "session_id": "١٢"}),
    _asking("a number for the session", {"message": "x", "session_id": 1}),
    _asking("an empty key", {"message": "x", "client_message_id": ""}),
    _asking("a key of 129", {"message": "x", "client_message_id": "k" * 129}),
    _asking("a key with NUL", {"message": "x", "client_message_id": "a\x00"}),
    _asking("an unknown model", {"message": "x", "model": "oracle"}, "unknown_model"),
    _asking("another user", {"message": "x", "user_id": "root"}, "forbidden", 403),
    _asking("another user's session", {"message": "x", "session_id": "theirs"}, "not_found", 404),
    _asking("a body too large", {"message": "x" * _LIMIT}, "payload_too_large", 413),
    _sending("the wrong media type", 415, "unsupported_media_type", {"Content-Type": "text/plain"}),
    _sending("no media type", 415, "unsupported_media_type", {}),
    _sending("two keys that differ", 400, "validation_failed", {**_JSON, "Idempotency-Key": "two"}),
    _sending("another site's page", 403, "forbidden", {**_JSON, "Sec-Fetch-Site": "cross-site"}),
    _sending("a page of the same site", 403, "forbidden", {**_JSON, "Sec-Fetch-Site": "same-site"}),
    _sending("another origin", 403, "forbidden", {**_JSON, "Origin": "https://evil.example"}),
    _sending("an origin that is none", 403, "forbidden", {**_JSON, "Origin": "null"}),
]
SESSIONS = [
    _session("an id with other characters", b'{"session_id": "a b"}'),
    _session("a blank title", b'{"title": "  "}'),
    _session("an id that is taken", b'{"session_id": "mine"}', "session_exists", 409),
    _session("an id that somebody else has", b'{"session_id": "theirs"}', "not_found", 404),
    _session("a title of 201", b'{"title": "%s"}' % (b"t" * 201), rename="/api/sessions/mine"),
    _session("a title that is missing", b"{}", rename="/api/sessions/mine"),
    _session(
        "another user's, renamed",
        b'{"title": "mine now"}',
        "not_found",
        404,
        rename="/api/sessions/theirs",
    ),
    Bad("session: another user's, deleted", "DELETE", "/api/sessions/theirs", 404, "not_found"),
    _getting("session: another user's, read", "/api/sessions/theirs", "not_found", 404),
    _getting("session: one that is not", "/api/sessions/none", "not_found", 404),
    _getting("session: NUL in its id", "/api/sessions/a%00b", "validation_failed"),
    _getting("session: bytes that are no text", "/api/sessions/%ff", "validation_failed"),
    _getting("session: its page, with a bad id", "/chat/a%00b", "validation_failed"),
    _getting("messages: another user's", "/api/sessions/theirs/messages", "not_found", 404),
    _getting("page: another user's", "/chat/theirs", "not_found", 404),
    _getting("page's stream: another user's", "/chat/theirs/stream", "not_found", 404),
    _getting("page's poll: another user's", "/chat/theirs/poll", "not_found", 404),
    *(
        _getting(f"limit: {limit!r}", f"/api/sessions?limit={limit}", "validation_failed")
        for limit in ("0", "101", "-1", "1.5", "", "ten", "1e1", "%D9%A3", "99999999999999999999")
    ),
    _getting("limit: twice", "/api/sessions?limit=1&limit=2", "validation_failed"),
    *(
        _getting(f"cursor: {cursor!r}", f"/api/sessions?cursor={cursor}", "invalid_cursor")
        for cursor in ("", "made-up", "%00", "%ff", "e30=", "x" * 600)
    ),
    *(
        _getting(
            f"before: {cursor!r}",
            f"/api/sessions/mine/messages?before={cursor}",
            "invalid_cursor",
        )
        for cursor in ("", "made-up", "%00", "01a209d8-ec17-77d5-8cf5-2b4c56bc6f81")
    ),
]
EVENTS = [
    *(
        Bad(
            f"position in the header: {position!r}",
            "GET",
            "/api/sessions/mine/events",
            400,
            "invalid_position",
            None,
            {"Last-Event-ID": position},
        )
        for position in ("", "1", "1-", "-1", "1-2-3", "a-b", "01-2", "1-+2", "9" * 17 + "-1")
    ),
    *(
        _getting(
            f"position in the query: {position!r}",
            f"/api/sessions/mine/events?last_event_id={position}",
            "invalid_position",
        )
        for position in ("", "1", "%00", "1-2%0a", "%D9%A1-%D9%A2")
    ),
    _getting(
        "position for a long poll",
        "/api/sessions/mine/events?transport=poll&last_event_id=x",
        "invalid_position",
    ),
    _getting(
        "position on the page's stream", "/chat/mine/stream?last_event_id=x", "invalid_position"
    ),
    _getting("position of the page's poll", "/chat/mine/poll?last_event_id=x", "invalid_position"),
    _getting("wait of the page's poll", "/chat/mine/poll?wait=31", "validation_failed"),
    *(
        _getting(
            f"wait: {wait!r}",
            f"/api/sessions/mine/events?transport=poll&wait={wait}",
            "validation_failed",
        )
        for wait in ("31", "-1", "nan", "inf", "1e2", "", "30.1")
    ),
    _getting("transport", "/api/sessions/mine/events?transport=pigeon", "validation_failed"),
    _getting("content", "/api/sessions/mine/events?content=both", "validation_failed"),
    _getting("events: another user's", "/api/sessions/theirs/events", "not_found", 404),
    _getting("events: of no session", "/api/sessions/none/events", "not_found", 404),
]
MESSAGES = [
    *(
        Bad(f"{verb}: {name}", "POST", f"/api/chat/{message}/{verb}", 404, "not_found")
        for verb in ("cancel", "regenerate")
        for name, message in (
            ("no such message", "01a209d8-ec17-77d5-8cf5-2b4c56bc6f81"),
            ("NUL in its id", "a%00b"),
            ("bytes that are no text", "%ff"),
        )
    ),
    Bad(
        "regenerate: an unknown field",
        "POST",
        "/api/chat/01a209d8-ec17-77d5-8cf5-2b4c56bc6f81/regenerate",
        400,
        "validation_failed",
        b'{"again": true}',
        _JSON,
    ),
]
CREDENTIALS = [
    _unauthenticated("another scheme", "Basic ZGV2OmRldg=="),
    _unauthenticated("an empty one", ""),
    _unauthenticated("none after the scheme", "Bearer"),
    _unauthenticated("not a token", "Bearer token"),
    _unauthenticated("another key", f"Bearer {token('u', key='x' * 32)}"),
    _unauthenticated("another algorithm", f"Bearer {token('u', key='x' * 64, algorithm='HS512')}"),
    _unauthenticated(
        "the right key, another algorithm",
        f"Bearer {token('u', algorithm='HS512')}",
    ),
    _unauthenticated("expired", f"Bearer {token('u', exp=int(time.time()) - 60)}"),
    _unauthenticated("no expiry", f"Bearer {token('u', exp=None)}"),
    _unauthenticated("an expiry that is text", f"Bearer {token('u', exp='soon')}"),
    _unauthenticated("an expiry that is a list", f"Bearer {token('u', exp=[])}"),
    _unauthenticated("an expiry beyond all numbers", f"Bearer {token('u', exp=10**400)}"),
    _unauthenticated("not yet valid", f"Bearer {token('u', nbf=int(time.time()) + 600)}"),
    _unauthenticated("no subject", f"Bearer {token('u', sub=None)}"),
    _unauthenticated("an empty subject", f"Bearer {token('')}"),
    _unauthenticated("a subject of 256", f"Bearer {token('u' * 256)}"),
    _unauthenticated("a subject with NUL", f"Bearer {token(chr(0))}"),
    _unauthenticated("roles that are no list", f"Bearer {token('u', roles='admin')}"),
    _unauthenticated("without a signature", f"Bearer {token('u').rpartition('.')[0]}."),
    _unauthenticated("a header nested deeply", f"Bearer {_nested_header()}"),
    _unauthenticated("one that is too long", f"Bearer {'a' * 9000}"),
]
ROUTES = [
    _getting("no such route", "/api/nothing", "not_found", 404),
    _getting("no such file", "/static/nothing.js", "not_found", 404),
    _getting("a file beside the static ones", "/static/../main.py", "not_found", 404),
    _getting("the same, encoded", "/static/%2e%2e%2fmain.py", "not_found", 404),
    _getting("a file that is not served", "/static/vendor/htmx/LICENSE", "not_found", 404),
    Bad("a method that is not allowed", "PUT", "/api/chat", 405, "method_not_allowed"),
    Bad("a method that nobody knows", "PROPFIND", "/api/chat", 405, "method_not_allowed"),
]
FORMS = [
    _form("blank", b"message=+&session_id=s1"),
    _form("empty", b""),
    _form("no session", b"message=x"),
    _form("invalid UTF-8", b"message=%ff&session_id=s1"),
    _form("NUL", b"message=a%00&session_id=s1"),
    _form("a field twice", b"message=a&message=b&session_id=s1"),
    _form("an unknown field", b"message=a&session_id=s1&colour=red"),
    _form("a session that is not", b"message=x", "/chat/none/messages", 404),
    _form("another user's session", b"message=x", "/chat/theirs/messages", 404),
    _form("stop another user's", b"", "/chat/theirs/stop", 404),
    Bad("form: JSON", "POST", "/chat", 415, "unsupported_media_type", b'{"message": "x"}', _JSON),
]
ALL = [
    *QUESTIONS,
    *SESSIONS,
    *EVENTS,
    *MESSAGES,
    *CREDENTIALS,
    *ROUTES,
    *FORMS,
]


@pytest.mark.parametrize("bad", ALL, ids=[bad.name for bad in ALL])
async def test_bad_input_is_a_problem_and_leaves_no_trace(node: WebNode, bad: Bad) -> None:
    rows = node.rows()
    node.logged.clear()
    async with node.client() as client:
        # Pages answer problems to whoever does not ask for HTML: what a program would see.
        request = client.build_request(
            bad.method, bad.path, content=bad.body, headers={"Accept": "*/*", **(bad.headers or {})}
        )
        # httpx tidies paths up; what a rude client sends is what counts.
        request.url = request.url.copy_with(raw_path=bad.path.encode())
        answer = await client.send(request)
    assert answer.status_code == bad.status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == bad.code
    assert problem["status"] == bad.status
    assert problem["type"] == f"/schema#problem-{bad.code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    if bad.status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer ")
    if bad.status == 405:
        assert "POST" in answer.headers["allow"]
    assert node.rows() == rows
    assert node.complaints() == []


async def test_a_field_that_is_wrong_is_named(node: WebNode) -> None:
    async with node.client() as client:
        for body, field in (
            ({"message": 1}, "message"),
            ({"message": "x", "colour": 1}, "colour"),
            ({}, "message"),
        ):
            problem = (await client.post("/api/chat", json=body)).json()
            assert [error["field"] for error in problem["errors"]] == [field]


async def test_a_body_too_large_is_refused_while_it_arrives(node: WebNode) -> None:
    """Without a Content-Length nobody knows its size before it is there."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b"x" * 1024

    async with node.client(**_JSON) as client:
        answer = await client.post("/api/chat", content=endless())
    assert answer.status_code == 413
    assert answer.json()["code"] == "payload_too_large"
    assert node.complaints() == []


async def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_error(node: WebNode) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b'{"message": '
        raise ConnectionResetError

    node.logged.clear()
    async with node.client(**_JSON) as client:
        with pytest.raises(ConnectionResetError):
            await client.post("/api/chat", content=broken())
    async with node.client() as client:
        assert (await client.get("/health/live")).is_success
    assert node.complaints() == []


async def test_a_request_that_is_not_http_gets_a_400_and_the_connection_is_closed(
    node: WebNode,
) -> None:
    port = httpx.URL(node.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    received = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    assert received.startswith(b"HTTP/1.1 400 ")
