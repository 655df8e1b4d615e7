"""What can go wrong, each as one coroutine that leaves the cluster able to recover."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from redis.asyncio import Redis

from tests.support.nodes import LEASE_SECONDS, Cluster, Node

if TYPE_CHECKING:
    from tests.chaos.report import Report

_FREEZE_PAST_LEASE_SECONDS = LEASE_SECONDS * 1.75
_FREEZE_BRIEFLY_SECONDS = LEASE_SECONDS * 0.5
_REDIS_FROZEN_SECONDS = 3.0
_REDIS_AWAY_SECONDS = 0.5


class Planned(NamedTuple):
    """One fault of a schedule."""

    at_seconds: float
    name: str


def schedule(seed: int, seconds: float) -> list[Planned]:
    """Plan faults every one to three seconds; the same seed gives the same plan."""
    chance = random.Random(seed)
    names = sorted(FAULTS)
    planned, at = [], 2.0
    while at < seconds:
        planned.append(Planned(at, chance.choice(names)))
        at += chance.uniform(1.0, 3.0)
    return planned


class Saboteur:
    """Carries a schedule out."""

    def __init__(self, cluster: Cluster, seed: int, report: Report) -> None:
        """Choose victims by the seed as well."""
        self.cluster = cluster
        self.chance = random.Random(seed + 1)
        self.redis = Redis.from_url(cluster.redis_url)
        self._report = report
        self._started = 0

    async def carry_out(self, planned: list[Planned]) -> None:
        """Do each at its time, then wake up whatever is still frozen."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for fault in planned:
            await asyncio.sleep(max(began + fault.at_seconds - loop.time(), 0))
            self._report.faults[fault.name] += 1
            await FAULTS[fault.name](self)
        for worker in self.workers():
            worker.signal(signal.SIGCONT)
        await self.redis.aclose()

    def workers(self) -> list[Node]:
        """Give the workers that live."""
        return [node for node in self.cluster.workers if node.process.poll() is None]

    def new_name(self, role: str) -> str:
        """Name a process that takes another's place; node ids are never used again."""
        self._started += 1
        return f"{role}-again-{self._started}"


async def _kill_worker(by: Saboteur) -> None:
    by.chance.choice(by.workers()).kill()
    by.cluster.start_worker(by.new_name("worker"))


async def _stop_worker(by: Saboteur) -> None:
    by.chance.choice(by.workers()).signal(signal.SIGTERM)
    by.cluster.start_worker(by.new_name("worker"))


async def _freeze_worker(by: Saboteur, seconds: float) -> None:
    worker = by.chance.choice(by.workers())
    worker.signal(signal.SIGSTOP)

    def wake() -> None:
        if worker.process.poll() is None:
            worker.signal(signal.SIGCONT)

    asyncio.get_running_loop().call_later(seconds, wake)


async def _replace_web(by: Saboteur, number: signal.Signals) -> None:
    at = by.chance.randrange(len(by.cluster.web))
    node = by.cluster.web.pop(at)
    node.signal(number)
    await asyncio.to_thread(node.process.wait, 10)
    port = int(node.url.rsplit(":", 1)[1])
    await by.cluster.start_web(by.new_name("web"), port=port)


async def _kill_redis(by: Saboteur) -> None:
    assert by.cluster.redis.pid is not None
    os.kill(by.cluster.redis.pid, signal.SIGKILL)
    await asyncio.sleep(_REDIS_AWAY_SECONDS)
    await by.cluster.redis.stop()
    await by.cluster.redis.start()


async def _freeze_redis(by: Saboteur) -> None:
    assert by.cluster.redis.pid is not None
    os.kill(by.cluster.redis.pid, signal.SIGSTOP)
    await asyncio.sleep(_REDIS_FROZEN_SECONDS)
    os.kill(by.cluster.redis.pid, signal.SIGCONT)


async def _flush_redis(by: Saboteur) -> None:
    await by.redis.flushall()


async def _flush_scripts(by: Saboteur) -> None:
    await by.redis.script_flush()


async def _lose_a_log(by: Saboteur) -> None:
    logs = sorted([key async for key in by.redis.scan_iter("chat:stream:*")])
    if logs:
        await by.redis.delete(by.chance.choice(logs))


async def _cut_connections(by: Saboteur) -> None:
    await by.redis.client_kill_filter(_type="pubsub")
    await by.redis.client_kill_filter(_type="normal", skipme=True)


FAULTS: Mapping[str, Callable[[Saboteur], Awaitable[None]]] = {
    "worker killed": _kill_worker,
    "worker stopped": _stop_worker,
    "worker frozen past its lease": lambda by: _freeze_worker(by, _FREEZE_PAST_LEASE_SECONDS),
    "worker frozen briefly": lambda by: _freeze_worker(by, _FREEZE_BRIEFLY_SECONDS),
    "web node killed": lambda by: _replace_web(by, signal.SIGKILL),
    "web node drained": lambda by: _replace_web(by, signal.SIGTERM),
    "redis killed": _kill_redis,
    "redis frozen": _freeze_redis,
    "redis emptied": _flush_redis,
    "redis scripts lost": _flush_scripts,
    "one log lost": _lose_a_log,
    "redis connections cut": _cut_connections,
}
