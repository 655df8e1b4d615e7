"""What counting a request costs: two web nodes on one Redis, of which one counts.

Sends the same requests to both in turns, under a token, and prints the CPU time of each node per
request, the ratio, and what Redis spent on a request that is counted::

    python -m benchmarks.limits [--requests 4000]

One run of turns: what else the machine does meets both nodes alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from app.db import migrate
from app.streams.embedded import EmbeddedRedis
from benchmarks.system import HOST, free_port, wait_until_ready

_COMMAND = str(Path(sys.executable).with_name("throughline"))
_PATHS = ("/api/models", "/api/sessions")
_TURN = 200
_CONNECTIONS = 8
_LIMITS = {"without": "0", "with": "10000000"}


class _Node(NamedTuple):
    client: httpx.AsyncClient
    process: psutil.Process


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    asyncio.run(_measure(parser.parse_args().requests))


async def _measure(requests: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        redis = EmbeddedRedis(Path(folder))
        await redis.start()
        try:
            async with _nodes(Path(folder), redis.url) as nodes:
                assert redis.pid is not None
                await _print(nodes, psutil.Process(redis.pid), requests)
        finally:
            await redis.stop()


async def _print(nodes: dict[str, _Node], redis: psutil.Process, requests: int) -> None:
    print(f"{'path':>16} {'without µs':>11} {'with µs':>9} {'ratio':>6} {'Redis µs':>9}")
    for path in _PATHS:
        # What is loaded at first use is no request's cost.
        for node in nodes.values():
            await _turn(node, path)
        spent = dict.fromkeys(nodes, 0.0)
        in_redis = dict.fromkeys(nodes, 0.0)
        for _ in range(max(requests // _TURN, 1)):
            for name, node in nodes.items():
                before = _cpu(redis)
                spent[name] += await _turn(node, path)
                in_redis[name] += _cpu(redis) - before
        per = 1e6 / (max(requests // _TURN, 1) * _TURN)
        without, counted = spent["without"] * per, spent["with"] * per
        redis_us = (in_redis["with"] - in_redis["without"]) * per
        print(
            f"{path:>16} {without:>11.0f} {counted:>9.0f} {counted / without:>6.2f}"
            f" {redis_us:>9.0f}"
        )


async def _turn(node: _Node, path: str) -> float:
    before = _cpu(node.process)
    remaining = iter(range(_TURN))

    async def ask() -> None:
        for _ in remaining:
            answer = await node.client.get(path)
            assert answer.status_code == 200, answer.text

    await asyncio.gather(*(ask() for _ in range(_CONNECTIONS)))
    return _cpu(node.process) - before


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@asynccontextmanager
async def _nodes(folder: Path, redis_url: str) -> AsyncIterator[dict[str, _Node]]:
    environment = os.environ | {
        "ENVIRONMENT": "development",
        "DATA_DIR": str(folder),
        "REDIS_URL": redis_url,
        "LOG_LEVEL": "warning",
    }
    await migrate.upgrade(f"sqlite:///{folder}/throughline.db")
    token = _token(environment)
    async with contextlib.AsyncExitStack() as stack:
        nodes = {}
        for name, limit in _LIMITS.items():
            port = free_port()
            process = _start(port, environment | {"RATE_LIMIT_REQUESTS": limit})
            stack.callback(process.wait, timeout=20)
            stack.callback(process.terminate)
            wait_until_ready(port)
            client = httpx.AsyncClient(
                base_url=f"http://{HOST}:{port}", headers={"Authorization": f"Bearer {token}"}
            )
            nodes[name] = _Node(
                await stack.enter_async_context(client), psutil.Process(process.pid)
            )
        yield nodes


def _token(environment: dict[str, str]) -> str:
    command = [_COMMAND, "token", "measured"]
    made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return made.stdout.strip()


def _start(port: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([_COMMAND, "web", "--port", str(port)], env=environment)


if __name__ == "__main__":
    main()
