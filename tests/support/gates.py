"""Processes whose every step outward waits until a test lets it be made.

The product's own parts run, each process with a log and a database of its own that stand for the
real ones. A call to either waits at a gate. The test decides which process's call is next and what
becomes of it: carried out, refused, carried out and its reply kept back or lost, or given up by the
caller and carried out late, when everything has changed. Between any two steps a process may be
killed, and time may pass: time is the test's, too.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.domain.errors import Unavailable
from app.streams.session_log import SessionLog

_TURNS = 40
"""Turns of the loop in which everything has happened that needs nothing from outside."""


class Leave(enum.Enum):
    """What becomes of a call that waits at its gate."""

    GO = enum.auto()
    """It is carried out, and its reply arrives."""
    HOLD_REPLY = enum.auto()
    """It is carried out; its reply waits at a gate, too."""
    FAIL = enum.auto()
    """It is not carried out (or its reply is lost), and its caller is told that it may not be."""
    LATE = enum.auto()
    """Its caller is told that it failed, and it is carried out at some later moment."""
    TWICE = enum.auto()
    """It is carried out, its reply arrives, and at some later moment it is carried out again."""


class StageLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still until the test moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now


class Process:
    """One process: its name, its calls that wait, and whether it lives."""

    def __init__(self, gates: Gates, name: str) -> None:
        self.name = name
        self.waiting: dict[asyncio.Future[Leave], str] = {}
        """Calls at their gates, the oldest first, each with what it is."""
        self.dead = False
        self._gates = gates
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def busy(self) -> bool:
        """Whether any of its tasks has not ended."""
        return bool(self._tasks)

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Begin some work of this process."""
        task = self._gates.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not self.dead and not task.cancelled() and (crash := task.exception()) is not None:
            self._gates.crashes.append(crash)

    async def ask_leave(self, what: str) -> Leave:
        """Wait at a gate."""
        if self.dead:
            raise asyncio.CancelledError
        leave: asyncio.Future[Leave] = self._gates.loop.create_future()
        self.waiting[leave] = what
        try:
            return await leave
        finally:
            self.waiting.pop(leave, None)

    async def call(self, what: str, act: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call that may be given up and be carried out late."""
        leave = await self.ask_leave(what)
        if leave is Leave.FAIL:
            raise Unavailable
        if leave is Leave.LATE:
            self._gates.late.append((f"{self.name} {what}", act))
            raise Unavailable
        if leave is Leave.TWICE:
            self._gates.late.append((f"{self.name} {what} again", act))
        found = await self._gates.carry_out(act)
        if leave is Leave.HOLD_REPLY and await self.ask_leave(f"reply of {what}") is not Leave.GO:
            raise Unavailable
        return found

    def kill(self) -> None:
        """End it between two steps; nothing of it runs on."""
        self.dead = True
        for task in self._tasks:
            task.cancel()


class Gates:
    """The loop on which all of it runs, and what is still to happen."""

    def __init__(self, loop: StageLoop) -> None:
        self.loop = loop
        self.late: list[tuple[str, Callable[[], Awaitable[Any]]]] = []
        """Calls that were given up by their callers and are on their way."""
        self.story: list[str] = []
        """What happened, for whoever reads a failure."""
        self.crashes: list[BaseException] = []
        """What ended work of a process that is no failure of a part, but a mistake."""
        self._carried_out = 0

    async def carry_out(self, act: Callable[[], Awaitable[Any]]) -> Any:
        """Do something real; ``settle`` waits for it."""
        self._carried_out += 1
        try:
            return await act()
        except AssertionError as breach:
            # Whoever made the call might take it for a failure of its own, and go on.
            self.crashes.append(breach)
            raise
        finally:
            self._carried_out -= 1

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Say that something real is going on; ``settle`` waits for it."""
        self._carried_out += 1
        try:
            yield
        finally:
            self._carried_out -= 1

    async def settle(self) -> None:
        """Let everything happen that needs neither leave nor time."""
        turns = 0
        while turns < _TURNS:
            turns = 0 if self._carried_out else turns + 1
            await asyncio.sleep(0)

    async def give(self, process: Process, leave: Leave) -> bool:
        """Let the oldest waiting call of a process go on; false where there is none."""
        for gate, what in process.waiting.items():
            if not gate.done():
                self.story.append(f"{process.name}: {what} {leave.name}")
                gate.set_result(leave)
                await self.settle()
                return True
        return False

    async def arrive_late(self, which: int) -> None:
        """Carry out one of the calls that are on their way; nobody hears of its outcome."""
        what, act = self.late.pop(which)
        self.story.append(f"late: {what}")
        await self.carry_out(act)
        await self.settle()


class GatedLog:
    """The session log as one process reaches it."""

    def __init__(self, process: Process, log: SessionLog) -> None:
        self._process = process
        self._log = log

    @property
    def log(self) -> SessionLog:
        """This, as what it stands for."""
        return cast("SessionLog", self)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._log, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            return await self._process.call(f"log {name}", lambda: method(*arguments, **named))

        return call


class GatedDatabase:
    """The database as one process reaches it; a transaction is one step."""

    def __init__(self, process: Process, gates: Gates, database: Database) -> None:
        self.dialect = database.dialect
        self._process = process
        self._gates = gates
        self._database = database

    @property
    def database(self) -> Database:
        """This, as what it stands for."""
        return cast("Database", self)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        if await self._process.ask_leave("database read") in {Leave.FAIL, Leave.LATE}:
            raise Unavailable
        async with self._gates.working(), self._database.read() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        # A transaction is many calls: one that was given up is never carried out late.
        leave = await self._process.ask_leave("database write")
        if leave in {Leave.FAIL, Leave.LATE}:
            raise Unavailable
        async with self._gates.working(), self._database.write() as connection:
            yield connection
        if leave is Leave.HOLD_REPLY:
            reply = await self._process.ask_leave("reply of commit")
            if reply is not Leave.GO:
                raise Unavailable
