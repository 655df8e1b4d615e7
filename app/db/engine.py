"""Connections to the database: SQLite by default, PostgreSQL for more than one machine."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import psycopg
from sqlalchemy import exc, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.db import postgresql, sqlite
from app.domain.errors import Unavailable

_PATIENCE = 4
"""How many times as long as for a lock a writer waits in the process's own queue: hundreds of
questions in one moment are late then, and not refused."""


class Database:
    """A pool of connections, and transactions on them.

    Every wait is bounded by ``timeout_seconds`` (5 by default): for a connection from the pool, for
    the server to take one, for a lock. A statement on PostgreSQL may take twice as long. Whatever
    keeps the database from answering raises ``Unavailable``. So does a commit whose reply was lost,
    although it may have taken effect: send the operation again, a repeat is recognised.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        timeout_seconds: float = 5.0,
        echo: bool = False,
    ) -> None:
        """Take ``sqlite:///FILE`` or ``postgresql://…``, with or without a driver's name.

        Connects to nothing yet. Raises ValueError for a URL of another kind.
        """
        try:
            target = make_url(url)
        except exc.ArgumentError as error:
            raise ValueError("the database URL is not of the form scheme://…") from error
        pool: dict[str, Any] = {
            "echo": echo,
            # The text of a failure must not carry what people wrote into the logs.
            "hide_parameters": True,
            "max_overflow": 0,
            "pool_size": pool_size,
            "pool_timeout": timeout_seconds,
        }
        self._timeout_seconds = timeout_seconds
        self._sqlite: sqlite.SqliteFile | None = None
        self._engine: AsyncEngine
        match target.get_backend_name():
            case "sqlite":
                self._sqlite = sqlite.SqliteFile(target, timeout_seconds)
                self._engine = self._sqlite.engine(**pool)
            case "postgresql" | "postgres":
                self._engine = create_async_engine(
                    target.set(drivername="postgresql+psycopg"),
                    connect_args=postgresql.connect_arguments(target, timeout_seconds),
                    # A server that was restarted is noticed here, and not by a request.
                    pool_pre_ping=True,
                    **pool,
                )
            case other:
                raise ValueError(f"databases are sqlite or postgresql, not {other}")
        self.dialect: Final = self._engine.dialect.name
        self._reader = self._engine.execution_options(postgresql_readonly=True)
        self._writer = self._engine.execution_options(**sqlite.WRITING)
        # SQLite's own wait for the write lock is a poll without a queue: under load some writers
        # would starve, each holding a connection. Within the process they queue here instead.
        self._sqlite_turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction that only reads.

        On SQLite it sees one snapshot and neither waits for writers nor holds them up. On
        PostgreSQL each statement sees what was committed before it.
        """
        with _boundary():
            async with self._reader.begin() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction, committed at the end unless something is raised."""
        with _boundary():
            async with self._turn(), self._writer.begin() as connection:
                yield connection

    async def ping(self) -> None:
        """Raise Unavailable unless the database answers."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close the pool's connections; nobody may be using one."""
        await self._engine.dispose()
        if self._sqlite is not None:
            await self._sqlite.wait_closed()

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._sqlite is None:
            yield
            return
        try:
            async with asyncio.timeout(_PATIENCE * self._timeout_seconds):
                await self._sqlite_turn.acquire()
        except TimeoutError as error:
            raise Unavailable("The database is busy") from error
        try:
            yield
        finally:
            self._sqlite_turn.release()


@contextlib.contextmanager
def _boundary() -> Iterator[None]:
    try:
        yield
    except exc.TimeoutError as error:
        raise Unavailable("No connection to the database became free") from error
    except exc.DBAPIError as error:
        if error.connection_invalidated or _is_unavailable(error.orig):
            raise Unavailable("The database cannot be reached") from error
        raise


def _is_unavailable(cause: BaseException | None) -> bool:
    match cause:
        case sqlite3.Error():
            return sqlite.is_unavailable(cause)
        case psycopg.Error():
            return postgresql.is_unavailable(cause)
        case _:
            return False
