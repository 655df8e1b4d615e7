"""``throughline doctor``: looks at what an installation stands on, and says what to do."""

from __future__ import annotations

import asyncio
import enum
import shutil
import stat
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from app.db import migrate
from app.db.engine import Database
from app.domain.errors import Unavailable
from app.signing_key import read_key
from app.streams.connection import connect

_OLDEST_REDIS = (7, 0)
_KNOWN_REDIS = range(7, 9)
_KNOWN_VALKEY = range(8, 10)
_CLOCK_MAX_SECONDS = 1.0
_DISK_WARN_BYTES = 1024**3
_DISK_FAIL_BYTES = 100 * 1024**2


class Verdict(enum.StrEnum):
    """How a check ended; only ``fail`` keeps the service from working."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """One line of the report; ``text`` says what was seen and, unless it is ok, what to do."""

    verdict: Verdict
    subject: str
    text: str

    def __str__(self) -> str:
        """Give the line."""
        return f"{self.verdict:<4}  {self.subject}: {self.text}"


@dataclass(frozen=True, slots=True)
class Installation:
    """What is to be examined.

    ``database_file`` is None where the database is a server, ``secret_file`` where the key that
    signs tokens is not kept in a file.
    """

    data_dir: Path
    redis_address: str
    database_address: str
    database_file: Path | None
    secret_file: Path | None
    timeout_seconds: float = 5.0


async def examine(installation: Installation) -> AsyncIterator[Finding]:
    """Give one finding after another; nothing is changed."""
    async for finding in _redis(installation):
        yield finding
    yield await _database(installation)
    yield await asyncio.to_thread(_disk, installation.data_dir)
    if installation.secret_file is not None:
        yield await asyncio.to_thread(_secret, installation.secret_file)


async def _redis(installation: Installation) -> AsyncIterator[Finding]:
    redis = connect(
        installation.redis_address,
        timeout_seconds=installation.timeout_seconds,
        max_connections=1,
    )
    try:
        try:
            information: dict[str, Any] = await redis.info()
            before = time.time()
            clock: tuple[int, int] = await redis.time()
            after = time.time()
        except (RedisError, OSError) as error:
            yield Finding(
                Verdict.FAIL,
                "Redis",
                f"does not answer ({type(error).__name__}); start `throughline up`, or set "
                "REDIS_URL to one that runs",
            )
            return
        yield version_finding(information)
        yield persistence_finding(information)
        yield await _eviction(redis, information)
        yield clock_finding(clock[0] + clock[1] / 1_000_000, before=before, after=after)
    finally:
        await redis.aclose(close_connection_pool=True)


def version_finding(information: dict[str, Any]) -> Finding:
    """Judge the server's version by its ``INFO server`` section."""
    valkey = information.get("valkey_version")
    name, version = ("Valkey", valkey) if valkey else ("Redis", information["redis_version"])
    major, minor = (int(part) for part in str(version).split(".")[:2])
    if (major, minor) < _OLDEST_REDIS:
        return Finding(Verdict.FAIL, "Redis version", f"{name} {version}; 7.0 or newer is needed")
    if major not in (_KNOWN_VALKEY if valkey else _KNOWN_REDIS):
        return Finding(
            Verdict.WARN,
            "Redis version",
            f"{name} {version} was not tested; Redis 7 and 8, Valkey 8 and 9 were",
        )
    return Finding(Verdict.OK, "Redis version", f"{name} {version}")


def persistence_finding(information: dict[str, Any]) -> Finding:
    """Judge by ``INFO persistence`` whether a restart keeps running answers."""
    if not int(information.get("aof_enabled", 0)):
        return Finding(
            Verdict.WARN,
            "Redis persistence",
            "no append-only file: a restart of Redis sends every running answer back to its "
            "beginning; set `appendonly yes`",
        )
    if information.get("aof_last_write_status") != "ok":
        return Finding(
            Verdict.FAIL,
            "Redis persistence",
            "the append-only file cannot be written; look at the server's disk and its log",
        )
    return Finding(Verdict.OK, "Redis persistence", "append-only file is written")


async def _eviction(redis: Redis, information: dict[str, Any]) -> Finding:
    try:
        policy = (await redis.config_get("maxmemory-policy"))["maxmemory-policy"]
    except (RedisError, KeyError):
        # Managed servers forbid CONFIG; INFO tells the same.
        policy = information.get("maxmemory_policy", "unknown")
    return eviction_finding(str(policy))


def eviction_finding(policy: str) -> Finding:
    """Judge ``maxmemory-policy``: anything but ``noeviction`` may drop leases and jobs."""
    if policy != "noeviction":
        return Finding(
            Verdict.FAIL,
            "Redis eviction",
            f"maxmemory-policy is {policy}: leases and jobs may vanish when memory is short; "
            "set it to noeviction",
        )
    return Finding(Verdict.OK, "Redis eviction", "maxmemory-policy is noeviction")


def clock_finding(theirs: float, *, before: float, after: float) -> Finding:
    """Compare Redis' time with ours around the question, all in Unix seconds."""
    off = max(before - theirs, theirs - after, 0.0)
    if off > _CLOCK_MAX_SECONDS:
        return Finding(
            Verdict.WARN,
            "Clock",
            f"differs from Redis' by {off:.1f} s; run a time service (chrony, systemd-timesyncd) "
            "on both machines",
        )
    return Finding(Verdict.OK, "Clock", "agrees with Redis' to a second")


async def _database(installation: Installation) -> Finding:
    address = installation.database_address
    try:
        database = Database(address, timeout_seconds=installation.timeout_seconds)
    except ValueError as error:
        return Finding(Verdict.FAIL, "Database", f"{error}; mend DATABASE_URL")
    try:
        file = installation.database_file
        if file is not None and not await asyncio.to_thread(file.exists):
            return Finding(
                Verdict.FAIL, "Database", "no SQLite file yet; run `throughline migrate`"
            )
        await database.ping()
        present, wanted = await migrate.current(address), migrate.head()
    except Unavailable as error:
        return Finding(
            Verdict.FAIL, "Database", f"{error.detail}; see that it runs and DATABASE_URL is right"
        )
    except DBAPIError as error:
        return Finding(Verdict.FAIL, "Database", f"{error.orig}; restore it from a backup")
    finally:
        await database.close()
    if present != wanted:
        return Finding(
            Verdict.FAIL,
            "Database",
            f"{database.dialect} at migration {present or 'none'}, wanted {wanted}; "
            "run `throughline migrate`",
        )
    return Finding(Verdict.OK, "Database", f"{database.dialect} at migration {present}")


def _disk(data_dir: Path) -> Finding:
    existing = next(place for place in (data_dir, *data_dir.parents) if place.exists())
    return disk_finding(shutil.disk_usage(existing).free, data_dir)


def disk_finding(free_bytes: int, data_dir: Path) -> Finding:
    """Judge the free space of the data directory's disk."""
    text = f"{free_bytes / 1024**3:.1f} GiB free for {data_dir}"
    if free_bytes < _DISK_FAIL_BYTES:
        return Finding(Verdict.FAIL, "Disk", f"{text}; make room: nothing can be stored soon")
    if free_bytes < _DISK_WARN_BYTES:
        return Finding(Verdict.WARN, "Disk", f"{text}; make room")
    return Finding(Verdict.OK, "Disk", text)


def _secret(file: Path) -> Finding:
    try:
        read_key(file)
        mode = stat.S_IMODE(file.stat().st_mode)
    except FileNotFoundError:
        return Finding(Verdict.OK, "JWT secret", "none yet; made at the first start in development")
    except (OSError, ValueError) as error:
        return Finding(Verdict.FAIL, "JWT secret", f"{file}: {error}; remove it or mend it")
    if mode & 0o077:
        return Finding(
            Verdict.WARN,
            "JWT secret",
            f"{file} can be read by others (mode {mode:04o}); run `chmod 600` on it",
        )
    return Finding(Verdict.OK, "JWT secret", f"{file} is readable by its owner only")


def status(findings: Sequence[Finding]) -> int:
    """Give the exit status: 1 where something fails."""
    return int(any(finding.verdict is Verdict.FAIL for finding in findings))
