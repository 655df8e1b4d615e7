"""What is particular to SQLite: its connections, its transactions, its errors."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import aiosqlite
from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

_BEGIN_WRITING: Final = "BEGIN IMMEDIATE"
_QUICK: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN")

WRITING: Final[dict[str, Any]] = {"throughline_sqlite_begin": _BEGIN_WRITING}
"""The execution options of a transaction that holds SQLite's one write lock from its start."""

# https://www.sqlite.org/rescode.html: what another process, the disk or the file's rights may
# cause. Everything else is a mistake of ours.
_UNAVAILABLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


class SqliteFile:
    """Opens connections to one file, each with a thread of its own that runs its calls."""

    def __init__(self, url: URL, timeout_seconds: float) -> None:
        """Take the file from the URL, and how long to wait for another process's lock.

        Raises ValueError for a URL without a file, or with options.
        """
        if not url.database or url.database == ":memory:":
            # Each connection of the pool would have a database of its own.
            raise ValueError("SQLite needs a file: sqlite:///path/to/file.db")
        if url.query:
            raise ValueError("the URL of an SQLite database takes no options")
        self._url = url.set(drivername="sqlite+aiosqlite")
        self._path = url.database
        self._timeout_seconds = timeout_seconds
        self._ending: set[asyncio.Future[Any]] = set()

    def engine(self, **options: Any) -> AsyncEngine:
        engine = create_async_engine(self._url, async_creator=self._open, **options)
        event.listen(engine.sync_engine, "connect", _prepare)
        event.listen(engine.sync_engine, "begin", _begin)
        return engine

    async def wait_closed(self) -> None:
        """Wait, bounded, for the threads of connections that were closed or failed to open.

        A thread reports its end to the event loop. Where the loop is gone by then, it dies with a
        stack trace instead.
        """
        if self._ending:
            await asyncio.wait(self._ending, timeout=self._timeout_seconds)

    async def _open(self) -> aiosqlite.Connection:
        return await _Connection(
            # isolation_level=None keeps the driver from beginning transactions by itself, late
            # and deferred: two of those that read and then write lose one of the two updates.
            lambda: sqlite3.connect(
                self._path,
                timeout=self._timeout_seconds,
                isolation_level=None,
                check_same_thread=False,
            ),
            self._ending,
            int(self._timeout_seconds * 1000),
        )


class _Connection(aiosqlite.Connection):
    """A connection that uses its thread for what may wait, and for nothing else.

    A statement of an open transaction takes microseconds. Handed to the thread and back it takes
    ten times as long, and lets everything else run in between while SQLite's one write lock is
    held. What waits for another process or for the disk (a lock that is taken, a commit, a new
    schema) goes to the thread; so does all else while the thread is at work, because SQLite would
    block the loop.
    """

    def __init__(
        self,
        connector: Callable[[], sqlite3.Connection],
        ending: set[asyncio.Future[Any]],
        busy_timeout_ms: int,
    ) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._thread.daemon = True
        self._ending = ending
        self._busy_timeout_ms = busy_timeout_ms
        self._in_thread = 0
        self._writing = False

    async def _execute(self, fn: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if self._in_thread == 0 and self._connection is not None:
            sql = _statement(fn, arguments)
            if sql == _BEGIN_WRITING:
                self._writing = True
                cursor = self._begin_at_once(fn, *arguments)
                if cursor is not None:
                    return cursor
            elif self._is_quick(fn, sql):
                return fn(*arguments, **named)
        self._in_thread += 1
        handed_over: Awaitable[Any] = super()._execute(fn, *arguments, **named)  # type: ignore[no-untyped-call]
        working = asyncio.ensure_future(handed_over)
        working.add_done_callback(self._thread_done)
        # Shielded, so that the count is true: a cancelled caller does not stop the thread.
        return await asyncio.shield(working)

    def _begin_at_once(self, fn: Callable[..., Any], *arguments: Any) -> Any:
        """Take the write lock where it is free; None where it is not."""
        raw = self._conn
        raw.execute("PRAGMA busy_timeout = 0")
        try:
            return fn(*arguments)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return None
        finally:
            raw.execute(f"PRAGMA busy_timeout = {self._busy_timeout_ms}")

    def _is_quick(self, fn: Callable[..., Any], sql: str | None) -> bool:
        if sql is not None:
            return sql.startswith(_QUICK)
        if isinstance(getattr(fn, "__self__", None), sqlite3.Connection):
            # Only a transaction that has written touches the disk at its end.
            return fn.__name__ == "cursor" or (
                fn.__name__ in {"commit", "rollback"} and not self._writing
            )
        return True

    def _thread_done(self, working: asyncio.Future[Any]) -> None:
        self._in_thread -= 1
        if not working.cancelled():
            working.exception()

    async def commit(self) -> None:
        await super().commit()
        self._writing = False

    async def rollback(self) -> None:
        await super().rollback()
        self._writing = False

    def stop(self) -> asyncio.Future[Any] | None:
        # The driver calls this without waiting for it when opening fails or is cancelled.
        ended: asyncio.Future[Any] | None = super().stop()
        if ended is not None:
            self._ending.add(ended)
            ended.add_done_callback(self._ending.discard)
        return ended


def _statement(fn: Callable[..., Any], arguments: Sequence[Any]) -> str | None:
    if fn.__name__ in {"execute", "executemany"} and arguments and isinstance(arguments[0], str):
        return arguments[0]
    return None


def is_unavailable(error: sqlite3.Error) -> bool:
    """Tell what may pass or is for the operator to mend from a mistake of ours."""
    # The low byte is the primary result code; an error of the driver's own has none.
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _UNAVAILABLE


def _prepare(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        # NORMAL in WAL mode: a commit outlives the process, though not the machine's power.
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        # What is deleted is overwritten: somebody who finds the file later does not read it.
        cursor.execute("PRAGMA secure_delete = ON")
        cursor.execute("PRAGMA journal_mode = WAL")
    finally:
        cursor.close()
    # SQLite's own «lower» knows the letters of English.
    connection.create_function("folded", 1, str.casefold, deterministic=True)


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql(options.get("throughline_sqlite_begin", "BEGIN"))
