"""A web node in the test's own loop, behind a real socket, with a real worker beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import structlog
from httpx_sse import EventSource, ServerSentEvent

from app.config import Settings
from app.db import migrate
from app.main import Node, build_node
from app.streams.embedded import EmbeddedRedis
from app.web.server import Server, listen
from tests.support.waiting import eventually

SECRET = "a secret for tests that is long enough for every HMAC there is, HS512 too"
"""64 bytes and more, so that a token may be signed by the right key with a wrong algorithm."""
UNLIMITED: dict[str, Any] = {
    "rate_limit_requests": 0,
    "rate_limit_questions": 0,
    "rate_limit_streams": 0,
    "rate_limit_address": 0,
    "rate_limit_frames": 0,
    # A machine that stands still for a moment must not count as a Redis that does.
    "rate_limit_timeout_seconds": 10.0,
}
"""A test asks as often as it likes, unless limits are what it is about."""
_COMMAND = str(Path(sys.executable).with_name("throughline"))
_TABLES = ("users", "chat_sessions", "messages", "outbox")


@dataclass
class WebNode:
    """A node that is being served."""

    url: str
    node: Node
    server: Server
    settings: Settings
    database: Path
    logged: list[structlog.typing.EventDict]
    """Every line that structlog was given so far."""

    def client(self, **headers: str) -> httpx.AsyncClient:
        """Give a client that acts as the user ``dev`` unless headers say otherwise."""
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10)

    def client_of(self, user_id: str, **claims: Any) -> httpx.AsyncClient:
        """Give a client with a user's token."""
        return self.client(Authorization=f"Bearer {token(user_id, **claims)}")

    def rows(self) -> dict[str, int]:
        """Count what is stored."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return {
                table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in _TABLES
            }

    def complaints(self) -> list[structlog.typing.EventDict]:
        """Give the lines that speak of a bug: errors, and all that carry a traceback."""
        return [
            line
            for line in self.logged
            if line["log_level"] in {"error", "critical"} or line.get("exc_info")
        ]


class _LoopServer(Server):
    """A server in a loop whose signals belong to the test runner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def token(user_id: str, *, key: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """Make a token; a claim that is None is left out."""
    said = {"sub": user_id, "exp": int(time.time()) + 300} | claims
    return jwt.encode(
        {name: value for name, value in said.items() if value is not None},
        key,
        algorithm=algorithm,
    )


@asynccontextmanager
async def serving(
    directory: Path, *, worker: bool = True, migrated: bool = True, **overrides: Any
) -> AsyncIterator[WebNode]:
    """Serve a node on a free port of this machine until the end of the block.

    ``migrated`` says that the database that the overrides name can be reached.
    """
    redis = EmbeddedRedis(directory)
    await redis.start()
    database = directory / "throughline.db"
    values: dict[str, Any] = {
        "environment": "development",
        "data_dir": directory,
        "redis_url": redis.url,
        "database_url": f"sqlite:///{database}",
        "jwt_secret": SECRET,
        "node_id": "web-under-test",
        "demo_delay_ms": 1,
    } | UNLIMITED
    settings = Settings(**values | overrides)
    try:
        if migrated:
            await migrate.upgrade(settings.database_address)
        with (
            structlog.testing.capture_logs() as logged,
            _worker(settings) if worker else contextlib.nullcontext(),
        ):
            async with _served(settings, database, logged) as node:
                yield node
    finally:
        await redis.stop()


@asynccontextmanager
async def beside(node: WebNode, **overrides: Any) -> AsyncIterator[WebNode]:
    """Serve another node over what that one has, until the end of the block."""
    settings = node.settings.model_copy(update={"node_id": "web-beside"} | overrides)
    async with _served(settings, node.database, node.logged) as other:
        yield other


@asynccontextmanager
async def _served(
    settings: Settings, database: Path, logged: list[structlog.typing.EventDict]
) -> AsyncIterator[WebNode]:
    node = build_node(settings)
    listener = listen("127.0.0.1", 0, stalled_seconds=30)
    port = listener.getsockname()[1]
    server = _LoopServer(
        node.application,
        drain=node.following.drain,
        drain_seconds=1,
        websocket_deflate=settings.websocket_deflate,
    )
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await eventually(lambda: server.started or running.done(), "the server is up")
        yield WebNode(f"http://127.0.0.1:{port}", node, server, settings, database, logged)
    finally:
        server.handle_exit(signal.SIGTERM, None)
        await asyncio.wait_for(running, 10)


@contextlib.contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    environment = os.environ | {
        "ENVIRONMENT": "development",
        "DATA_DIR": str(settings.data_dir),
        "REDIS_URL": settings.redis_address,
        "DATABASE_URL": settings.database_address,
        "DEMO_DELAY_MS": str(settings.demo_delay_ms),
        "WORKER_CONCURRENCY": str(settings.worker_concurrency),
        "NODE_ID": "worker-under-test",
    }
    with (settings.data_dir / "worker.log").open("wb") as output:
        process = subprocess.Popen(
            [_COMMAND, "worker", "generation"], env=environment, stdout=output, stderr=output
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            finally:
                # One that did not end must not outlive the test that it failed.
                process.kill()
                process.wait()


async def ask(client: httpx.AsyncClient, message: str, **fields: Any) -> dict[str, Any]:
    """Ask a question; give the 202's body."""
    answer = await client.post("/api/chat", json={"message": message, **fields})
    assert answer.status_code == 202, answer.text
    asked: dict[str, Any] = answer.json()
    return asked


async def answered(client: httpx.AsyncClient, asked: dict[str, Any]) -> dict[str, Any]:
    """Wait for the answer to what was asked and give its final message."""
    url = f"/api/sessions/{asked['session_id']}/events?transport=poll"
    message_id = asked["assistant_message"]["message_id"]
    resume: dict[str, str] = {}
    while True:
        polled = (await client.get(f"{url}&wait=10", headers=resume)).json()
        resume = {"Last-Event-ID": polled["position"]}
        seen = [event["data"] for event in polled["events"] if event["type"] == "message"]
        if polled["history"] is not None:
            seen += polled["history"]["messages"]
        for message in seen:
            if message["message_id"] == message_id and message["is_complete"]:
                final: dict[str, Any] = message
                return final


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, path: str, **headers: str
) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    """Open an event stream and give its events as they come.

    httpx-sse makes an empty event of a ``retry:`` or a comment that stands alone; the standard
    does not (WHATWG HTML, 9.2.6), nor do we.
    """
    async with client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        events = EventSource(response).aiter_sse()
        yield (event async for event in events if event.data or event.event != "message")


async def until(events: AsyncIterator[ServerSentEvent], name: str) -> list[ServerSentEvent]:
    """Read events up to the first of that name; give all of them."""
    seen = []
    async with asyncio.timeout(15):
        async for event in events:
            seen.append(event)
            if event.event == name:
                return seen
    raise AssertionError(f"the stream ended without {name}: {[event.event for event in seen]}")
