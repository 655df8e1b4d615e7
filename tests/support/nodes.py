"""Real processes for end-to-end tests: Valkey, a migrated database, web nodes and workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.db import migrate
from app.streams.embedded import EmbeddedRedis
from tests.support.contract_client import ContractClient, SseParser
from tests.support.waiting import eventually

LEASE_SECONDS = 2.0
_COMMAND = str(Path(sys.executable).with_name("throughline"))


@dataclass
class Node:
    """One process of ours."""

    name: str
    process: subprocess.Popen[bytes]
    url: str = ""

    def kill(self) -> None:
        """End it without a chance to say anything."""
        self.signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)


@dataclass
class Cluster:
    """Everything that one test started."""

    directory: Path
    redis: EmbeddedRedis
    database_url: str
    settings: dict[str, str]
    web: list[Node] = field(default_factory=list)
    workers: list[Node] = field(default_factory=list)

    @property
    def redis_url(self) -> str:
        """Where Valkey listens."""
        return self.redis.url

    @property
    def environment(self) -> dict[str, str]:
        """What a process of ours needs to join."""
        return os.environ | {
            "ENVIRONMENT": "development",
            "DATA_DIR": str(self.directory),
            "REDIS_URL": self.redis.url,
            "DATABASE_URL": self.database_url,
            "LEASE_TTL_SECONDS": str(LEASE_SECONDS),
            "LOG_LEVEL": "info",
            # A test asks as often as it likes.
            "RATE_LIMIT_REQUESTS": "0",
            "RATE_LIMIT_QUESTIONS": "0",
            "RATE_LIMIT_STREAMS": "0",
            "RATE_LIMIT_ADDRESS": "0",
            "RATE_LIMIT_FRAMES": "0",
            # A machine that stands still for a moment must not count as a Redis that does.
            "RATE_LIMIT_TIMEOUT_SECONDS": "10",
            **self.settings,
        }

    def start_worker(self, name: str) -> Node:
        """Start a generation worker; it takes jobs as soon as it is up."""
        worker = Node(name, self._start(name, "worker", "generation"))
        self.workers.append(worker)
        return worker

    async def start_web(self, name: str, port: int | None = None) -> Node:
        """Start a web node, on a free port unless one is given, and wait until it is ready."""
        port = port or free_port()
        node = Node(name, self._start(name, "web", "--port", str(port)), f"http://127.0.0.1:{port}")
        self.web.append(node)

        def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{node.url}/health/ready", timeout=1).status_code == 200
            assert node.process.poll() is None, self.output(name)
            return False

        await eventually(ready, f"{name} ready", seconds=50)
        return node

    def output(self, name: str) -> str:
        """Give what a process wrote."""
        return (self.directory / f"{name}.log").read_text()

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as output:
            return subprocess.Popen(
                [_COMMAND, *arguments],
                env=self.environment | {"NODE_ID": name},
                stdout=output,
                stderr=output,
            )

    def stop(self) -> None:
        """End whatever still runs."""
        for node in [*self.web, *self.workers]:
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
                node.process.kill()
                node.process.wait(timeout=10)


@asynccontextmanager
async def running_cluster(
    directory: Path, *, web: int, workers: int, database_url: str | None = None, **settings: str
) -> AsyncIterator[Cluster]:
    """Start Valkey, ``web`` nodes and ``workers``, and end all of them with the block."""
    redis = EmbeddedRedis(directory)
    await redis.start()
    url = database_url or f"sqlite:///{directory / 'throughline.db'}"
    cluster = Cluster(directory, redis, url, settings)
    try:
        await migrate.upgrade(url)
        for number in range(1, workers + 1):
            cluster.start_worker(f"worker-{number}")
        await asyncio.gather(*(cluster.start_web(f"web-{n}") for n in range(1, web + 1)))
        yield cluster
    finally:
        cluster.stop()
        await redis.stop()


def free_port() -> int:
    """Give a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def ask(node: Node, message: str, **body: str) -> dict[str, Any]:
    """Ask a question; give the 202's body."""
    async with httpx.AsyncClient(base_url=node.url, timeout=10) as client:
        answer = await client.post("/api/chat", json={"message": message, **body})
    assert answer.status_code == 202, answer.text
    asked: dict[str, Any] = answer.json()
    return asked


async def messages(node: Node, session_id: str) -> list[dict[str, Any]]:
    """Read a session's messages."""
    async with httpx.AsyncClient(base_url=node.url, timeout=10) as client:
        answer = await client.get(f"/api/sessions/{session_id}/messages")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def read_stream(
    node: Node,
    session_id: str,
    client: ContractClient,
    *,
    until_complete: str | None = None,
    events: int | None = None,
) -> list[tuple[str | None, str, Any]]:
    """Follow over SSE from the client's position, until a message is final or after ``events``.

    Gives all that arrived, control frames too. A connection that breaks ends it as well.
    """
    headers = {"Accept": "text/event-stream"}
    if client.position is not None:
        headers["Last-Event-ID"] = client.position
    seen: list[tuple[str | None, str, Any]] = []
    counted = 0
    with contextlib.suppress(httpx.TransportError):
        async with (
            httpx.AsyncClient(base_url=node.url, timeout=30) as http,
            http.stream("GET", f"/api/sessions/{session_id}/events", headers=headers) as stream,
        ):
            assert stream.status_code == 200, await stream.aread()
            parser = SseParser()
            async for line in stream.aiter_lines():
                event = parser.line(line)
                if event is None:
                    continue
                seen.append(event)
                client.apply(*event)
                counted += event[0] is not None
                if until_complete is not None and client.is_complete(until_complete):
                    return seen
                if events is not None and counted >= events:
                    return seen
    return seen


async def follow_to_the_end(
    nodes: list[Node], session_id: str, client: ContractClient, message_id: str
) -> None:
    """Follow over SSE, at another node after each broken connection, until the answer is final."""
    for attempt in range(200):
        node = nodes[attempt % len(nodes)]
        if node.process.poll() is None:
            await read_stream(node, session_id, client, until_complete=message_id)
        if client.is_complete(message_id):
            return
    raise AssertionError("the answer did not end")
