"""Keep child processes running, and end them together."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from app.tether import tethered

CONFIGURATION_STATUSES = frozenset({2, 78})
"""Exit statuses that trying again does not mend: usage, and EX_CONFIG of sysexits.h."""

logger = structlog.get_logger(__name__)


class GaveUp(Exception):
    """A child cannot be kept running; the message is one sentence for a person."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep running.

    ``environment`` is asked at each start, so that a restarted process can have a new name.
    """

    name: str
    command: Sequence[str]
    environment: Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How a supervisor deals with children that die or do not end, in seconds and tries."""

    first_backoff_seconds: float = 0.2
    longest_backoff_seconds: float = 10.0
    healthy_after_seconds: float = 10.0
    start_attempts: int = 3
    stop_seconds: float = 8.0


class Supervisor:
    """Starts children, starts them again when they die, and ends them all at once.

    Each child is a session of its own, so that Ctrl-C in the terminal reaches only us, and is
    killed by the kernel when we are.
    """

    def __init__(self, children: Sequence[Child], patience: Patience | None = None) -> None:
        """Take the children; nothing is started."""
        self._children = children
        self._patience = patience or Patience()
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = False
        self._settled = False

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the children that run now, by name."""
        return {name: process.pid for name, process in self._running.items()}

    def settle(self) -> None:
        """Say that everything is up: from now on a child that dies is restarted for ever."""
        self._settled = True

    async def run(self) -> None:
        """Keep all children running until cancelled; raise GaveUp where one refuses to run."""
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children:
                    group.create_task(self._keep(child))
        except* GaveUp as group_of_one:
            raise group_of_one.exceptions[0] from None

    async def stop(self, hurry: asyncio.Event) -> None:
        """End all children in good order; kill them when their time is up or on ``hurry``.

        Returns when none is left. Call it after ``run`` was cancelled or has raised.
        """
        self._stopping = True
        left = list(self._running.values())
        for process in left:
            _send(process, signal.SIGTERM)
        gone = asyncio.gather(*(process.wait() for process in left))
        hurried = asyncio.create_task(hurry.wait())
        either: set[asyncio.Future[Any]] = {gone, hurried}
        await asyncio.wait(
            either,
            timeout=self._patience.stop_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurried.cancel()
        for name, process in self._running.items():
            if process.returncode is None:
                if not hurry.is_set():
                    logger.warning("process_killed", process=name)
                _send(process, signal.SIGKILL)
        await gone
        self._running.clear()

    async def _keep(self, child: Child) -> None:
        patience = self._patience
        loop = asyncio.get_running_loop()
        backoff = patience.first_backoff_seconds
        quick_deaths = 0
        while True:
            began = loop.time()
            process = await self._start(child)
            status = await process.wait()
            if self._stopping:
                return
            del self._running[child.name]
            if status in CONFIGURATION_STATUSES:
                raise GaveUp(f"{child.name} refused to start with these settings (see above)")
            if loop.time() - began >= patience.healthy_after_seconds:
                quick_deaths, backoff = 0, patience.first_backoff_seconds
            quick_deaths += 1
            if not self._settled and quick_deaths >= patience.start_attempts:
                raise GaveUp(f"{child.name} ended {quick_deaths} times at its start (see above)")
            logger.error(
                "process_ended",
                process=child.name,
                how=ending(status),
                restart_after_seconds=backoff,
            )
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, patience.longest_backoff_seconds)

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        # Shielded: a process that started while we were cancelled must not be forgotten.
        starting = asyncio.create_task(start(child.command, child.environment()))
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._running[child.name] = await starting
            raise
        except OSError as error:
            raise GaveUp(f"{child.name} cannot be started: {error}") from error
        self._running[child.name] = process
        return process


async def start(
    command: Sequence[str], environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Start a command as a session of its own that does not outlive us; raise OSError."""
    return await asyncio.create_subprocess_exec(
        *tethered(command, last_signal=signal.SIGKILL),
        stdin=asyncio.subprocess.DEVNULL,
        env=dict(environment),
        start_new_session=True,
    )


async def run_once(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end and give its status; kill it where we are cancelled."""
    process = await start(command, environment)
    try:
        return await process.wait()
    except asyncio.CancelledError:
        _send(process, signal.SIGKILL)
        await process.wait()
        raise


def ending(status: int) -> str:
    """Say how a process ended (``status 1``, ``killed by SIGKILL``)."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
