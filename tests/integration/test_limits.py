"""What a user and an address may do: told in headers, refused in words, the same everywhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.config import Settings
from tests.support.waiting import eventually
from tests.support.web import WebNode, ask, following, serving, token

_MANY = 50
"""Far more than any limit here; a place comes free again at most every twenty seconds."""
_CONNECTION_JS = Path(__file__).parents[2] / "app" / "static" / "connection.js"

Call = Callable[[], Awaitable[httpx.Response]]


async def until_refused(call: Call) -> list[httpx.Response]:
    """Call until it is refused; give all answers."""
    answers = []
    for _ in range(_MANY):
        answers.append(await call())
        if answers[-1].status_code == 429:
            return answers
    raise AssertionError(f"never refused: {[answer.status_code for answer in answers]}")


def refusal(answer: httpx.Response) -> dict[str, Any]:
    """Check what a refusal says; give the problem."""
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (429, "rate_limited")
    wait = int(answer.headers["Retry-After"])
    assert 1 <= wait == problem["retry_after_seconds"]
    assert answer.headers["RateLimit-Remaining"] == "0"
    assert int(answer.headers["RateLimit-Reset"]) >= wait
    return problem


def refused_by(node: WebNode, bucket: str) -> float:
    """Give how often the metrics say that a bucket refused."""
    limited = node.node.application.state["parts"].metrics.limits_refused
    value: float = limited.labels(bucket=bucket)._value.get()
    return value


class TestRequests:
    async def test_a_user_is_told_how_many_are_left_and_then_when_to_come_again(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path, worker=False, rate_limit_requests=3) as node:
            async with node.client_of("alice") as alice:
                answers = await until_refused(lambda: alice.get("/api/models"))
                assert len(answers) >= 4
                first = answers[0].headers
                assert (first["RateLimit-Limit"], first["RateLimit-Remaining"]) == ("3", "2")
                assert first["RateLimit-Reset"] == "20"
                assert refusal(answers[-1])["detail"].startswith("Too many requests; try again in")
                assert refused_by(node, "requests") == 1
                # Pages are requests like others, and a browser is given a page.
                page = await alice.get("/", headers={"Accept": "text/html"})
                assert page.status_code == 429
                assert "Too many requests" in page.text
            async with node.client_of("bob") as bob:
                assert (await bob.get("/api/models")).headers["RateLimit-Remaining"] == "2"

    async def test_who_needs_no_credential_on_a_laptop_has_no_limit(self, tmp_path: Path) -> None:
        async with serving(
            tmp_path, worker=False, rate_limit_requests=1, rate_limit_streams=1
        ) as node:
            async with node.client() as dev:
                for _ in range(5):
                    answer = await dev.get("/api/models")
                    assert answer.status_code == 200
                    assert "RateLimit-Limit" not in answer.headers
            # Whoever signs in has, also by the same name.
            async with node.client_of("dev") as signed_in:
                await until_refused(lambda: signed_in.get("/api/models"))

    async def test_probes_and_static_files_are_not_counted(self, tmp_path: Path) -> None:
        async with (
            serving(tmp_path, worker=False, rate_limit_requests=1, rate_limit_address=1) as node,
            node.client_of("alice") as alice,
        ):
            await until_refused(lambda: alice.get("/api/models"))
            for path in ("/health/live", "/metrics", "/schema/openapi.json", "/favicon.ico"):
                for _ in range(3):
                    assert (await alice.get(path)).status_code == 200

    async def test_a_question_that_cannot_be_read_counts_as_a_request(self, tmp_path: Path) -> None:
        async with (
            serving(tmp_path, worker=False, rate_limit_requests=3) as node,
            node.client_of("alice") as alice,
        ):
            answers = await until_refused(lambda: alice.post("/api/chat", json={"message": 1}))
            assert {answer.status_code for answer in answers[:-1]} == {400}
            refusal(answers[-1])


class TestQuestions:
    @pytest.fixture
    async def node(self, tmp_path: Path) -> AsyncIterator[WebNode]:
        async with serving(tmp_path, rate_limit_questions=1) as node:
            yield node

    async def test_however_a_question_is_asked_it_is_counted(self, node: WebNode) -> None:
        """One a minute, for each user; the second is asked in each way that there is."""
        browser = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
        script = browser | {"HX-Request": "true"}
        for headers, path, body in (
            ({}, "/api/chat", None),
            ({}, "/api/chat/{answer}/regenerate", None),
            (browser, "/chat", {"message": "typed long ago", "session_id": str(uuid.uuid4())}),
            (browser, "/chat/{session}/messages", {"message": "typed long ago"}),
            (script, "/chat/{session}/messages", {"message": "typed long ago"}),
            (browser, "/chat/messages/{answer}/regenerate", {"keep": ""}),
        ):
            async with node.client_of(f"user-{uuid.uuid4()}") as client:
                asked = await ask(client, "/echo once")
                answer_id = asked["assistant_message"]["message_id"]
                url = path.format(session=asked["session_id"], answer=answer_id)
                json_body = {"message": "again"} if url == "/api/chat" else None
                answer = await client.post(url, json=json_body, data=body, headers=headers)
                assert answer.status_code == 429, url
                assert 1 <= int(answer.headers["Retry-After"]) <= 60
                assert answer.headers["RateLimit-Limit"] == "1"
                assert "Too many questions; try again in" in answer.text
                if headers is browser and body and "message" in body:
                    # What was typed is still in its field, and can be sent again.
                    assert re.search(r"<textarea[^>]*>\s*typed long ago</textarea>", answer.text)
        assert node.complaints() == []

    async def test_over_a_websocket_too_which_stays_open(self, node: WebNode) -> None:
        async with node.client_of("alice") as alice:
            await alice.post("/api/sessions", json={"session_id": "s-1"})
        async with opened(node, "alice") as socket:
            for number in range(2):
                said = {"type": "chat", "message": "/echo x", "client_message_id": f"c-{number}"}
                await socket.send(json.dumps(said))
            error = (await until(socket, "error"))["data"]
            assert (error["code"], error["retryable"]) == ("rate_limited", True)
            assert error["client_message_id"] == "c-1"
            assert 1 <= error["retry_after_seconds"] <= 60
            await socket.send('{"type": "ping"}')
            await until(socket, "pong")

    async def test_a_days_characters_are_a_setting(self, tmp_path: Path) -> None:
        async with (
            serving(tmp_path / "other", worker=False, rate_limit_characters=100) as node,
            node.client_of("alice") as alice,
        ):
            await ask(alice, "x" * 90)
            refused = await alice.post("/api/chat", json={"message": "x" * 90})
            assert refused.status_code == 429
            assert "Too much was asked in a day" in refused.json()["detail"]
            await ask(alice, "x")


class TestAddresses:
    async def test_strangers_are_limited_by_address_and_users_are_not(self, tmp_path: Path) -> None:
        async with serving(tmp_path, worker=False, rate_limit_address=3) as node:
            async with node.client(Authorization="Bearer nonsense") as stranger:
                answers = await until_refused(lambda: stranger.get("/api/models"))
                assert {answer.status_code for answer in answers[:-1]} == {401}
                refusal(answers[-1])
                assert refused_by(node, "address") == 1
            async with node.client_of("alice") as alice:
                assert (await alice.get("/api/models")).status_code == 200

    async def test_behind_a_proxy_of_ours_each_client_counts_for_itself(
        self, tmp_path: Path
    ) -> None:
        async with (
            serving(
                tmp_path, worker=False, rate_limit_address=3, trusted_proxies="127.0.0.1"
            ) as node,
            node.client(Authorization="Bearer nonsense") as proxy,
        ):

            def from_(address: str) -> Awaitable[httpx.Response]:
                # What the client claimed itself stands to the left.
                said = {"X-Forwarded-For": f"{uuid.uuid4()}, 192.0.2.1, {address}"}
                return proxy.get("/api/models", headers=said)

            await until_refused(lambda: from_("203.0.113.9"))
            assert (await from_("198.51.100.1")).status_code == 401
            clients = {line["client"] for line in node.logged if line["event"] == "request"}
            assert clients == {"203.0.113.9", "198.51.100.1"}

    async def test_nobody_else_is_believed(self, tmp_path: Path) -> None:
        async with (
            serving(tmp_path, worker=False, rate_limit_address=3) as node,
            node.client(Authorization="Bearer nonsense") as spoofer,
        ):
            numbers = iter(range(_MANY))
            await until_refused(
                lambda: spoofer.get(
                    "/api/models", headers={"X-Forwarded-For": f"203.0.113.{next(numbers)}"}
                )
            )
            clients = {line["client"] for line in node.logged if line["event"] == "request"}
            assert clients == {"127.0.0.1"}

    async def test_an_address_holds_so_many_connections_and_then_others_again(
        self, tmp_path: Path
    ) -> None:
        async with (
            serving(tmp_path, worker=False, connections_per_address=1) as node,
            node.client() as dev,
        ):
            await dev.post("/api/sessions", json={"session_id": "s-1"})
            url = "/api/sessions/s-1/events"
            async with following(dev, url) as events:
                assert (await anext(events)).event == "welcome"
                refused = await dev.get(f"{url}?transport=poll")
                assert (refused.status_code, refused.json()["code"]) == (
                    429,
                    "too_many_connections",
                )
                async with opened(node) as socket:
                    error = await until(socket, "error")
                    assert error["data"]["code"] == "too_many_connections"
                    assert await close_code(socket) == 4290
                # What holds nothing is not meant.
                assert (await dev.get("/api/models")).status_code == 200
            held = node.node.application.state["parts"].limits._held
            await eventually(lambda: not held, "the place is free")
            async with opened(node) as socket:
                assert (await until(socket, "welcome"))["data"]["session_id"] == "s-1"
                assert dict(held) == {"127.0.0.1": 1}
            await eventually(lambda: not held, "the place is free again")


class TestStreams:
    async def test_opening_streams_has_a_bucket_of_its_own(self, tmp_path: Path) -> None:
        async with (
            serving(tmp_path, worker=False, rate_limit_streams=3, rate_limit_requests=100) as node,
            node.client_of("alice") as alice,
        ):
            await alice.post("/api/sessions", json={"session_id": "s-1"})
            for path in ("/api/sessions/s-1/events?transport=poll", "/chat/s-1/poll"):
                answers = await until_refused(
                    lambda path=path: alice.get(path)  # type: ignore[misc]
                )
                refusal(answers[-1])
            async with opened(node, "alice") as socket:
                error = (await until(socket, "error"))["data"]
                assert (error["code"], error["retryable"]) == ("rate_limited", True)
                assert await close_code(socket) == 4290
            assert (await alice.get("/api/models")).headers["RateLimit-Remaining"] == "98"

    async def test_a_flood_of_frames_ends_the_connection(self, tmp_path: Path) -> None:
        """Everybody's, whoever they are: each frame costs the node something."""
        async with serving(tmp_path, worker=False, rate_limit_frames=10) as node:
            async with node.client() as dev:
                await dev.post("/api/sessions", json={"session_id": "s-1"})
            async with opened(node) as socket:
                with contextlib.suppress(ConnectionClosed):
                    for _ in range(_MANY):
                        await socket.send('{"type": "ping"}')
                assert await close_code(socket) == 4290
            assert refused_by(node, "frames") == 1

    def test_the_default_lets_pages_poll_while_answers_are_written(self) -> None:
        """A page that polls pauses between two polls; several pages of one user may."""
        pause_ms = int(re.findall(r"POLL_PAUSE_MS = (\d+)", _CONNECTION_JS.read_text())[0])
        assert Settings().rate_limit_streams >= 5 * 60_000 / pause_ms


class TestWithoutRedis:
    async def test_reading_goes_on_uncounted_and_says_so(self, tmp_path: Path) -> None:
        nobody = f"unix://{tmp_path}/nobody.sock"
        async with (
            serving(tmp_path, worker=False, redis_url=nobody, rate_limit_requests=1) as node,
            node.client_of("alice") as alice,
        ):
            for _ in range(5):
                answer = await alice.get("/api/sessions")
                assert answer.status_code == 200
                assert "RateLimit-Limit" not in answer.headers
            metrics = (await alice.get("/metrics")).text
            assert 'throughline_limits_uncounted_total{what="requests"} 5.0' in metrics
            assert [line for line in node.logged if line["event"] == "limits_not_counted"]
            # What needs Redis anyway is refused by that.
            refused = await alice.post("/api/chat", json={"message": "x"})
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")


class TestStrictTransport:
    @pytest.mark.parametrize(
        ("origin", "header"),
        [
            (None, None),
            ("http://chat.example.org", None),
            ("https://chat.example.org", "max-age=31536000"),
        ],
    )
    async def test_browsers_are_told_to_come_by_https_where_that_is_where_we_are(
        self, tmp_path: Path, origin: str | None, header: str | None
    ) -> None:
        async with (
            serving(tmp_path, worker=False, public_origin=origin) as node,
            node.client() as client,
        ):
            for path in ("/health/live", "/", "/nowhere"):
                answer = await client.get(path)
                assert answer.headers.get("Strict-Transport-Security") == header


@asynccontextmanager
async def opened(node: WebNode, user: str | None = None) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {token(user)}"} if user else None
    url = f"{node.url.replace('http', 'ws')}/ws/chat?session_id=s-1"
    async with connect(url, additional_headers=headers) as socket:
        yield socket


async def until(socket: ClientConnection, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            frame: dict[str, Any] = json.loads(await socket.recv())
            if frame["type"] == kind:
                return frame


async def close_code(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code
