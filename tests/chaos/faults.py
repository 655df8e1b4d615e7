"""What can go wrong, each as one coroutine that leaves the cluster able to recover."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.chaos.report import Report
from tests.chaos.stage import Stage, filled, port_of
from tests.support.network import Connection
from tests.support.nodes import LEASE_SECONDS, Node

_FREEZE_PAST_LEASE_SECONDS = LEASE_SECONDS * 1.75
_FREEZE_BRIEFLY_SECONDS = LEASE_SECONDS * 0.5
_REDIS_FROZEN_SECONDS = 3.0
_REDIS_FROZEN_LONG_SECONDS = 20.0
_REDIS_AWAY_SECONDS = 0.5
_DISK_FULL_SECONDS = 3.0
_STALL_SECONDS = 7.0
"""Longer than anybody waits for Redis (``REDIS_TIMEOUT_SECONDS``): what was given up arrives."""

_FIRST_SECONDS = 2.0
_END_SECONDS = 60
"""A process that was told to end must have; far more than it takes where there is time for it."""

LEAST_FAULTS = 3
_QUIET = 0.3
_QUIET_SECONDS = (LEASE_SECONDS + 2.0, LEASE_SECONDS + 4.0)
"""Now and then nothing else goes wrong for so long: what one fault costs can be told then."""

Pauses = tuple[float, float]
PAUSES: Pauses = (1.0, 3.0)
"""The least and the longest time from a fault to the next."""


class Planned(NamedTuple):
    """One fault of a schedule."""

    at_seconds: float
    name: str


class Kind(NamedTuple):
    """One kind of fault."""

    act: Callable[[Saboteur], Awaitable[None]]
    lasts_seconds: float = 0.0
    why_not: Callable[[Stage], str | None] = lambda _: None
    """Why it cannot be made here; None where it can."""


def schedule(
    seed: int, seconds: float, *, kinds: Sequence[str] = (), pauses: Pauses = PAUSES
) -> list[Planned]:
    """Plan faults for so long; the same seed gives the same plan, on any machine.

    Each kind comes once before any comes twice, but for those that would last beyond the end.
    Where ``kinds`` chooses some, each has the time that it takes to tell what it alone costs.
    """
    chance = random.Random(seed)
    planned: list[Planned] = []
    bag: list[str] = []
    at = _FIRST_SECONDS
    while at < seconds:
        if not bag:
            bag = sorted(kinds or FAULTS)
            chance.shuffle(bag)
        name = bag.pop()
        lasts = FAULTS[name].lasts_seconds
        if lasts and at + lasts > seconds:
            continue
        planned.append(Planned(at, name))
        quiet = chance.random() < _QUIET or bool(kinds)
        at += lasts + chance.uniform(*(_QUIET_SECONDS if quiet else pauses))
    return planned


class Saboteur:
    """Carries a schedule out."""

    def __init__(self, stage: Stage, seed: int, report: Report) -> None:
        """Choose victims by the seed as well."""
        self.stage = stage
        self.cluster = stage.cluster
        self.chance = random.Random(seed + 1)
        self.redis = stage.redis
        self._report = report
        self._started = 0
        self._later: set[asyncio.Task[None]] = set()

    async def carry_out(self, planned: list[Planned], seconds: float) -> None:
        """Do each at its time, then wake up whatever is still frozen.

        On a busy machine each takes its time. What has not begun after ``seconds`` is left out,
        but for the first few: a run without any harm shows nothing.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        for at_seconds, name in planned:
            await asyncio.sleep(max(began + at_seconds - loop.time(), 0))
            if loop.time() - began > seconds and len(self._report.faults) >= LEAST_FAULTS:
                break
            kind = FAULTS[name]
            reason = kind.why_not(self.stage)
            if reason is not None:
                self._report.skipped[name] = reason
                continue
            with self._report.doing(name):
                await kind.act(self)
        for worker in self.workers():
            worker.signal(signal.SIGCONT)
        await asyncio.gather(*self._later)

    def workers(self) -> list[Node]:
        """Give the workers that live."""
        return [node for node in self.cluster.workers if node.process.poll() is None]

    def new_name(self, role: str) -> str:
        """Name a process that takes another's place; node ids are never used again."""
        self._started += 1
        return f"{role}-again-{self._started}"

    def half_of(self, connections: list[Connection]) -> list[Connection]:
        """Choose some connections."""
        return [one for one in connections if self.chance.random() < 0.5]

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something while other faults go on."""
        fault = self._report.fault_now

        async def wait() -> None:
            await asyncio.sleep(seconds)
            act()
            if fault is not None:
                fault.ended = asyncio.get_running_loop().time()

        self._later.add(asyncio.create_task(wait()))

    async def note_sessions_of(self, worker: Node) -> None:
        """Note whose answers a worker is giving, to see how long they will be without one."""
        found = {}
        async for key in self.redis.scan_iter("session:owner:*"):
            owner: Any = await self.redis.get(key)
            if owner is not None and owner.rpartition(b":")[0].decode() == worker.name:
                found[key.decode().partition("{")[2].removesuffix("}")] = worker.name
        self._report.interrupt(found)


async def _kill_worker(by: Saboteur) -> None:
    worker = by.chance.choice(by.workers())
    await by.note_sessions_of(worker)
    worker.kill()
    by.cluster.start_worker(by.new_name("worker"))


async def _stop_worker(by: Saboteur) -> None:
    worker = by.chance.choice(by.workers())
    await by.note_sessions_of(worker)
    worker.signal(signal.SIGTERM)
    by.cluster.start_worker(by.new_name("worker"))


async def _restart_everything(by: Saboteur) -> None:
    """Go through every process, one after the other, as an upgrade does."""
    for worker in by.workers():
        worker.signal(signal.SIGTERM)
        by.cluster.start_worker(by.new_name("worker"))
        await asyncio.to_thread(worker.process.wait, _END_SECONDS)
    for _ in range(len(by.cluster.web)):
        await _replace_web(by, signal.SIGTERM, at=0)


async def _freeze_worker(by: Saboteur, seconds: float) -> None:
    worker = by.chance.choice(by.workers())
    worker.signal(signal.SIGSTOP)

    def wake() -> None:
        if worker.process.poll() is None:
            worker.signal(signal.SIGCONT)

    by.later(seconds, wake)


async def _replace_web(by: Saboteur, number: signal.Signals, at: int | None = None) -> None:
    at = by.chance.randrange(len(by.cluster.web)) if at is None else at
    node = by.cluster.web.pop(at)
    node.signal(number)
    await asyncio.to_thread(node.process.wait, _END_SECONDS)
    await by.cluster.start_web(by.new_name("web"), port=port_of(node))


async def _kill_redis(by: Saboteur) -> None:
    assert by.cluster.redis.pid is not None
    os.kill(by.cluster.redis.pid, signal.SIGKILL)
    await asyncio.sleep(_REDIS_AWAY_SECONDS)
    await by.cluster.redis.stop()
    await by.cluster.redis.start()


async def _freeze_redis(by: Saboteur, seconds: float) -> None:
    assert by.cluster.redis.pid is not None
    os.kill(by.cluster.redis.pid, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    os.kill(by.cluster.redis.pid, signal.SIGCONT)


async def _flush_redis(by: Saboteur) -> None:
    await by.redis.flushall()


async def _flush_scripts(by: Saboteur) -> None:
    await by.redis.script_flush()


async def _lose_a_log(by: Saboteur) -> None:
    logs = sorted([key async for key in by.redis.scan_iter("chat:stream:*")])
    if logs:
        await by.redis.delete(by.chance.choice(logs))


async def _cut_redis_connections(by: Saboteur) -> None:
    for connection in by.half_of(by.stage.to_redis.connections):
        connection.cut()


async def _half_open_redis_connections(by: Saboteur) -> None:
    for connection in by.half_of(by.stage.to_redis.connections):
        connection.vanish()


async def _stall_redis_connections(by: Saboteur) -> None:
    _stall(by, by.half_of(by.stage.to_redis.connections))


async def _cut_client_connections(by: Saboteur) -> None:
    for connection in by.half_of(by.stage.connections_of_clients()):
        connection.cut()


async def _half_open_client_connections(by: Saboteur) -> None:
    for connection in by.half_of(by.stage.connections_of_clients()):
        connection.vanish()


async def _stall_client_connections(by: Saboteur) -> None:
    _stall(by, by.half_of(by.stage.connections_of_clients()))


def _stall(by: Saboteur, connections: list[Connection]) -> None:
    for connection in connections:
        connection.stall()

    def go_on() -> None:
        for connection in connections:
            connection.go_on()

    by.later(_STALL_SECONDS, go_on)


async def _fill_disk(by: Saboteur) -> None:
    assert by.stage.disk is not None
    with filled(by.stage.disk):
        await asyncio.sleep(_DISK_FULL_SECONDS)


async def _restart_database(by: Saboteur) -> None:
    assert by.stage.postgresql is not None
    await asyncio.to_thread(by.stage.postgresql.restart)


def _no_disk(stage: Stage) -> str | None:
    return None if stage.disk else "a file system to fill can only be mounted by root"


def _no_server(stage: Stage) -> str | None:
    return None if stage.postgresql else "SQLite has no server; --database postgresql"


FAULTS: Mapping[str, Kind] = {
    "worker killed": Kind(_kill_worker),
    "worker stopped": Kind(_stop_worker),
    "worker frozen past its lease": Kind(lambda by: _freeze_worker(by, _FREEZE_PAST_LEASE_SECONDS)),
    "worker frozen briefly": Kind(lambda by: _freeze_worker(by, _FREEZE_BRIEFLY_SECONDS)),
    "web node killed": Kind(lambda by: _replace_web(by, signal.SIGKILL)),
    "web node drained": Kind(lambda by: _replace_web(by, signal.SIGTERM)),
    "every process restarted in turn": Kind(_restart_everything, 8.0),
    "redis killed": Kind(_kill_redis),
    "redis frozen": Kind(lambda by: _freeze_redis(by, _REDIS_FROZEN_SECONDS), 3.0),
    "redis frozen for long": Kind(
        lambda by: _freeze_redis(by, _REDIS_FROZEN_LONG_SECONDS), _REDIS_FROZEN_LONG_SECONDS
    ),
    "redis emptied": Kind(_flush_redis),
    "redis scripts lost": Kind(_flush_scripts),
    "one log lost": Kind(_lose_a_log),
    "redis connections cut": Kind(_cut_redis_connections),
    "redis connections half-open": Kind(_half_open_redis_connections),
    "redis connections stalled": Kind(_stall_redis_connections),
    "client connections cut": Kind(_cut_client_connections),
    "client connections half-open": Kind(_half_open_client_connections),
    "client connections stalled": Kind(_stall_client_connections),
    "disk full": Kind(_fill_disk, _DISK_FULL_SECONDS, _no_disk),
    "database restarted": Kind(_restart_database, 2.0, _no_server),
}
