"""Everything that a run of chaos plays on: real processes, with networks of ours between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from redis.asyncio import Redis

from app.db import migrate
from app.streams.embedded import EmbeddedRedis
from app.streams.embedded_directory import EmbeddedDirectory
from tests.support.network import Connection, Network, network_to
from tests.support.nodes import Cluster, Node
from tests.support.postgresql import PostgresqlServer

_DISK_BYTES = 512 * 1024 * 1024
_START_SECONDS = 60.0
"""A machine that a run keeps busy takes its time to start a server again."""

_CLOCKS_OFF_SECONDS = (-1800.0, -5.0, 0.0, 0.0, 5.0, 1800.0)


@dataclass
class ClocksOffCluster(Cluster):
    """A cluster in which each process's clock is set off by a time of its own."""

    seed: int = 0

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        # By name, so that it does not depend on when a fault replaced which process.
        offset = random.Random(f"{self.seed} {name}").choice(_CLOCKS_OFF_SECONDS)
        self.settings["CLOCK_OFFSET_SECONDS"] = str(offset)
        return super()._start(name, *arguments)


@dataclass
class Stage:
    """A cluster whose nodes reach Redis, and whose clients reach nodes, over networks of ours."""

    cluster: Cluster
    redis: Redis
    """Past every network of ours. One for all: one that is made for a moment and cancelled in it
    would be left open."""
    to_redis: Network
    to_web: dict[int, Network] = field(default_factory=dict)
    """By the port of the web node behind it; a node that takes another's place keeps its port."""
    disk: Path | None = None
    """A file system of the run's own, which holds what Redis and SQLite write; None: the usual."""
    postgresql: PostgresqlServer | None = None

    def url(self, node: Node) -> str:
        """Give the address at which clients reach a web node."""
        return f"http://127.0.0.1:{self.to_web[port_of(node)].port}"

    def connections_of_clients(self) -> list[Connection]:
        """Give the open connections of clients, by node."""
        return [one for port in sorted(self.to_web) for one in self.to_web[port].connections]


def port_of(node: Node) -> int:
    """Give the port that a web node itself listens on."""
    port = urlsplit(node.url).port
    assert port is not None
    return port


@asynccontextmanager
async def staged(
    directory: Path,
    *,
    seed: int,
    web: int,
    workers: int,
    postgresql: PostgresqlServer | None,
    **settings: str,
) -> AsyncIterator[Stage]:
    """Start Valkey, ``web`` nodes and ``workers``; end all of them with the block."""
    with contextlib.ExitStack() as disks:
        data = directory / "data"
        data.mkdir()
        disk = disks.enter_context(disk_of_its_own(data))
        redis = EmbeddedRedis(data, start_seconds=_START_SECONDS)
        url = f"sqlite:///{data / 'throughline.db'}"
        if postgresql is not None:
            url = postgresql.create("chaos")
        async with contextlib.AsyncExitStack() as networks:
            to_redis = await networks.enter_async_context(
                network_to(EmbeddedDirectory(data).socket)
            )
            cluster = ClocksOffCluster(
                directory,
                redis,
                url,
                {
                    "DATA_DIR": str(data),
                    "REDIS_URL": f"redis://127.0.0.1:{to_redis.port}/0",
                    **settings,
                },
                seed=seed,
            )
            past = Redis.from_url(cluster.redis_url)
            networks.push_async_callback(past.aclose)
            stage = Stage(cluster, past, to_redis, disk=disk, postgresql=postgresql)
            try:
                await redis.start()
                await migrate.upgrade(url)
                for number in range(1, workers + 1):
                    cluster.start_worker(f"worker-{number}")
                names = [f"web-{number}" for number in range(1, web + 1)]
                await asyncio.gather(*map(cluster.start_web, names))
                # In the order of their names: the seed chooses among them by place.
                cluster.web.sort(key=lambda node: node.name)
                for node in cluster.web:
                    port = port_of(node)
                    stage.to_web[port] = await networks.enter_async_context(
                        network_to(("127.0.0.1", port))
                    )
                yield stage
            finally:
                cluster.stop()
                await redis.stop()


@contextmanager
def disk_of_its_own(directory: Path) -> Iterator[Path | None]:
    """Mount a small file system there, which can be filled; None where that is not allowed."""
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=700", "tmpfs", directory],
            check=False,
            capture_output=True,
        ).returncode
        == 0
    )
    try:
        yield directory if mounted else None
    finally:
        if mounted:
            # Lazily: a process that dies slowly may have a file open still.
            subprocess.run(["umount", "-l", directory], check=True, capture_output=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leave no room on a file system until the end of the block."""
    filler = disk / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            room = os.statvfs(disk)
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)
            # What others freed meanwhile.
            file.seek(0, os.SEEK_END)
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * room.f_frsize)
        yield
    finally:
        filler.unlink(missing_ok=True)
