"""What is true of every request: identity, headers, files, probes, the schema, the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from litestar.routes import HTTPRoute

from app.web.server import listen
from tests.support.nodes import ask as ask_node
from tests.support.nodes import running_cluster
from tests.support.waiting import eventually
from tests.support.web import WebNode, ask, following, serving, token, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebNode]:
    async with serving(
        tmp_path_factory.mktemp("node"), stream_heartbeat_seconds=0.2, connections_per_user=20
    ) as node:
        yield node


@pytest_asyncio.fixture(loop_scope="module")
async def client(node: WebNode) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that acts as a user of this test alone."""
    async with node.client_of(f"user-{uuid.uuid4()}") as client:
        yield client


class TestIdentity:
    async def test_in_development_a_request_without_credentials_is_the_user_dev(
        self, node: WebNode
    ) -> None:
        async with node.client() as ambient, node.client_of("dev") as named:
            session_id = (await ambient.post("/api/sessions")).json()["session_id"]
            assert (await named.get(f"/api/sessions/{session_id}")).is_success

    async def test_a_page_of_our_own_may_act_as_the_ambient_user(self, node: WebNode) -> None:
        for headers in (
            {"Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
            {"Origin": node.url},
        ):
            async with node.client(**headers) as client:
                assert (await client.post("/api/sessions")).status_code == 201

    async def test_a_token_speaks_for_itself_wherever_the_request_comes_from(
        self, node: WebNode
    ) -> None:
        async with node.client_of("abroad") as client:
            client.headers["Sec-Fetch-Site"] = "cross-site"
            assert (await client.post("/api/sessions")).status_code == 201

    async def test_a_token_is_not_taken_from_the_url(self, node: WebNode) -> None:
        async with node.client_of("me") as client:
            session_id = (await client.post("/api/sessions")).json()["session_id"]
        async with node.client() as ambient:
            for name in ("token", "access_token", "ticket"):
                path = f"/api/sessions/{session_id}?{name}={token('me')}"
                assert (await ambient.get(path)).status_code == 404

    async def test_a_clock_may_be_a_little_off(self, node: WebNode) -> None:
        async with node.client_of("late", exp=int(time.time()) - 1) as client:
            assert (await client.get("/api/sessions")).is_success

    async def test_production_has_no_ambient_user_and_checks_issuer_and_audience(
        self, tmp_path: Path
    ) -> None:
        async with serving(
            tmp_path,
            worker=False,
            environment="production",
            jwt_issuer="us",
            jwt_audience="chat",
        ) as node:
            async with node.client() as nobody:
                answer = await nobody.get("/api/sessions")
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == 'Bearer realm="throughline"'
                page = await nobody.get("/", headers={"Accept": "text/html"})
                assert (page.status_code, page.headers["location"]) == (303, "/sign-in")
                for public in ("/health", "/health/live", "/metrics", "/schema"):
                    assert (await nobody.get(public)).is_success
            for claims, status in (
                ({"iss": "us", "aud": "chat"}, 200),
                ({"iss": "us", "aud": ["chat", "mail"]}, 200),
                ({"iss": "them", "aud": "chat"}, 401),
                ({"iss": "us", "aud": "mail"}, 401),
                ({"iss": "us"}, 401),
                ({"aud": "chat"}, 401),
            ):
                async with node.client_of("u", **claims) as client:
                    assert (await client.get("/api/sessions")).status_code == status, claims


class TestEveryResponse:
    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/api/sessions",
            "/api/nothing",
            "/health",
            "/metrics",
            "/schema",
            "/static/app.css",
            "/api/sessions?limit=x",
        ],
    )
    async def test_it_carries_a_request_id_and_the_security_headers(
        self, client: httpx.AsyncClient, path: str
    ) -> None:
        answer = await client.get(path)
        assert len(answer.headers["x-request-id"]) == 32
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "server" not in answer.headers

    async def test_a_sane_request_id_is_kept_and_another_replaced(
        self, client: httpx.AsyncClient
    ) -> None:
        kept = await client.get("/health/live", headers={"X-Request-ID": "trace-0123.abc"})
        assert kept.headers["x-request-id"] == "trace-0123.abc"
        for bad in ("short", "x" * 129, "a b c d e f g h", "{jndi:ldap}"):
            replaced = await client.get("/health/live", headers={"X-Request-ID": bad})
            assert len(replaced.headers["x-request-id"]) == 32

    @pytest.mark.parametrize("path", ["/", "/api/models", "/health", "/static/app.js"])
    async def test_head_is_get_without_the_body(self, client: httpx.AsyncClient, path: str) -> None:
        got, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-type"] == got.headers["content-type"]

    async def test_options_names_the_methods(self, client: httpx.AsyncClient) -> None:
        answer = await client.options("/api/sessions")
        assert answer.status_code == 204
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
        refused = await client.put("/api/sessions")
        assert refused.status_code == 405
        assert refused.headers["allow"] == "GET, HEAD, OPTIONS, POST"

    async def test_a_request_is_one_line_with_its_ids_and_without_what_was_said(
        self, node: WebNode, client: httpx.AsyncClient
    ) -> None:
        node.logged.clear()
        asked = await ask(client, "/echo a-secret-word")
        (line,) = [line for line in node.logged if line["event"] == "request"]
        assert (line["route"], line["status"], line["method"]) == ("/api/chat", 202, "POST")
        assert line["session_id"] == asked["session_id"]
        assert line["message_id"] == asked["assistant_message"]["message_id"]
        assert line["duration_ms"] > 0
        assert len(line["request_id"]) == 32
        assert "a-secret-word" not in str(node.logged)
        assert client.headers["authorization"].partition(" ")[2] not in str(node.logged)

    async def test_what_nobody_expected_is_a_bare_500_with_the_traceback_in_the_log(
        self, node: WebNode, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chat = node.node.application.state["parts"].chat

        def broken() -> None:
            raise RuntimeError("the insides")

        monkeypatch.setattr(chat, "models", broken)
        node.logged.clear()
        answer = await client.get("/api/models")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "insides" not in answer.text
        (complaint,) = node.complaints()
        assert "the insides" in str(complaint["exc_info"])


class TestStaticFiles:
    async def test_a_versioned_file_may_be_kept_and_another_is_revalidated(
        self, client: httpx.AsyncClient
    ) -> None:
        plain = await client.get("/static/app.css")
        assert plain.headers["cache-control"] == "no-cache"
        etag = plain.headers["etag"]
        version = etag.removeprefix("W/").strip('"')
        kept = await client.get(f"/static/app.css?v={version}")
        assert "immutable" in kept.headers["cache-control"]
        again = await client.get("/static/app.css", headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"].removeprefix("W/") == f'"{version}"'

    async def test_it_is_compressed_only_for_those_who_ask(self, client: httpx.AsyncClient) -> None:
        packed = await client.get("/static/app.js", headers={"Accept-Encoding": "br, gzip"})
        plain = await client.get("/static/app.js", headers={"Accept-Encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert packed.content == plain.content
        assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"

    async def test_the_vendored_scripts_are_those_of_the_named_version(self) -> None:
        folder = Path(__file__).parents[2] / "app" / "static" / "vendor" / "htmx"
        assert "4.0.1" in (folder / "VERSION").read_text()
        assert '"4.0.1"' in (folder / "htmx.min.js").read_text()
        assert (folder / "LICENSE").read_text().startswith("Zero-Clause BSD")


class TestProbes:
    async def test_health_names_each_component(self, node: WebNode) -> None:
        async with node.client() as client:
            report = (await client.get("/health")).json()
            assert report["status"] in {"UP", "DEGRADED"}
            assert report["node_id"] == "web-under-test"
            assert report["components"].keys() == {
                "redis",
                "database",
                "events",
                "disk",
                "models",
            }
            assert report["components"]["database"] == {"status": "UP"}
            assert (await client.get("/health/live")).json()["status"] == "UP"
            assert (await client.get("/health/ready")).status_code == 200

    async def test_without_redis_it_is_degraded_and_without_database_down(
        self, tmp_path: Path
    ) -> None:
        async with serving(
            tmp_path, worker=False, redis_url=f"unix://{tmp_path}/none.sock"
        ) as node:
            async with node.client() as client:
                answer = await client.get("/health")
                assert (answer.status_code, answer.json()["status"]) == (200, "DEGRADED")
                assert answer.json()["components"]["redis"]["status"] == "DOWN"
                asked = await client.post("/api/chat", json={"message": "x"})
                assert (asked.status_code, asked.json()["code"]) == (503, "unavailable")
                assert int(asked.headers["retry-after"]) > 0
            assert node.rows()["messages"] == 0
        async with (
            serving(
                tmp_path, worker=False, database_url="postgresql://127.0.0.1:1/none", migrated=False
            ) as node,
            node.client() as client,
        ):
            answer = await client.get("/health")
            assert (answer.status_code, answer.json()["status"]) == (503, "DOWN")
            assert (await client.get("/health/ready")).status_code == 503
            assert (await client.get("/health/live")).status_code == 200
            listed = await client.get("/api/sessions")
            assert (listed.status_code, listed.json()["code"]) == (503, "unavailable")

    async def test_metrics_count_requests_by_route_and_never_by_path(
        self, node: WebNode, client: httpx.AsyncClient
    ) -> None:
        await client.get("/api/sessions/one-of-many")
        await client.get("/an/unknown/path")
        text = (await client.get("/metrics")).text
        assert 'route="/api/sessions/{session_id}",status="404"' in text
        assert "one-of-many" not in text
        assert 'route="unmatched"' in text
        assert "unknown" not in text


class TestSchema:
    async def test_it_names_each_route_and_no_other(self, node: WebNode) -> None:
        """Pages and static files are for browsers: they are no part of the API."""
        async with node.client() as client:
            document = (await client.get("/schema/openapi.json")).json()
        described = {
            (path, method.upper())
            for path, item in document["paths"].items()
            for method in item
            if method != "parameters"
        }
        served = {
            (route.path_format, method)
            for route in node.node.application.routes
            if isinstance(route, HTTPRoute)
            and route.path.startswith(("/api", "/auth", "/health", "/metrics", "/schema"))
            for method in route.methods
            if method != "OPTIONS"
        }
        assert described == served

    async def test_all_its_references_lead_somewhere(self, node: WebNode) -> None:
        async with node.client() as client:
            text = (await client.get("/schema/openapi.json")).text
        document = json.loads(text)
        assert document["openapi"].startswith("3.1")
        references = {piece.partition('"')[0] for piece in text.split('"$ref":"')[1:]}
        assert references
        for reference in references:
            found: Any = document
            for name in reference.removeprefix("#/").split("/"):
                found = found[name]

    async def test_it_is_a_page_for_people_that_explains_every_code(self, node: WebNode) -> None:
        async with node.client() as client:
            page = await client.get("/schema", headers={"Accept": "text/html"})
            assert page.headers["content-type"].startswith("text/html")
            assert 'id="problem-generation_in_progress"' in page.text
            assert "/api/sessions/{session_id}/events" in page.text
            assert "http://" not in page.text.replace(node.url, "")
            document = await client.get("/schema", headers={"Accept": "application/json"})
            assert document.json()["openapi"].startswith("3.1")


class TestEnding:
    @pytest.mark.timeout(90)
    async def test_sigterm_tells_streams_to_come_back_and_ends_within_a_second(
        self, tmp_path: Path
    ) -> None:
        async with running_cluster(tmp_path, web=1, workers=1) as cluster:
            web = cluster.web[0]
            asked = await ask_node(web, "/count 500 50")
            path = f"/api/sessions/{asked['session_id']}/events"
            async with (
                httpx.AsyncClient(base_url=web.url, timeout=10) as client,
                following(client, path) as first,
                following(client, path) as second,
            ):
                await until(first, "chunk")
                await until(second, "chunk")
                polling = asyncio.create_task(
                    client.get("/api/sessions/none-yet/events?transport=poll&wait=30")
                )
                began = time.monotonic()
                web.signal(signal.SIGTERM)
                for events in (first, second):
                    bye = json.loads((await until(events, "bye"))[-1].data)
                    assert (bye["reason"], bye["reconnect"]) == ("drain", True)
                    assert [event async for event in events] == []
                status = await asyncio.to_thread(web.process.wait, 10)
                took = time.monotonic() - began
                polling.cancel()
            assert status == 0, cluster.output("web-1")
            assert took < 1.0
            assert "Traceback" not in cluster.output("web-1")

    async def test_a_second_signal_waits_for_nothing(self, tmp_path: Path) -> None:
        async with running_cluster(tmp_path, web=1, workers=0, DRAIN_SECONDS="60") as cluster:
            web = cluster.web[0]
            url = httpx.URL(web.url)
            _, writer = await asyncio.open_connection("127.0.0.1", url.port)
            # A request whose body never arrives: nothing but its client could end it.
            writer.write(b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            await writer.drain()
            async with httpx.AsyncClient(base_url=url) as client:
                assert (await client.get("/health/live")).is_success
            web.signal(signal.SIGTERM)
            await eventually(lambda: not _listens(url), "the node listens no more")
            assert web.process.poll() is None
            web.signal(signal.SIGTERM)
            assert await asyncio.to_thread(web.process.wait, 5) == 0
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
    async def test_the_kernel_drops_a_peer_that_acknowledges_nothing(self) -> None:
        with listen("127.0.0.1", 0, stalled_seconds=7) as listener:
            assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000

    async def test_a_port_that_is_taken_is_one_line_and_status_1(self, tmp_path: Path) -> None:
        async with running_cluster(tmp_path, web=1, workers=0) as cluster:
            port = str(httpx.URL(cluster.web[0].url).port)
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("throughline")),
                "web",
                "--port",
                port,
                env=cluster.environment,
                stderr=asyncio.subprocess.PIPE,
            )
            _, written = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 1
        lines = written.decode().splitlines()
        assert lines == [
            f"throughline: cannot listen on 127.0.0.1 port {port}: Address already in use"
        ]


def _listens(url: httpx.URL) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((url.host, url.port or 0)) == 0
