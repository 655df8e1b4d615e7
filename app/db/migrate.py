"""Bringing a database's schema up to date, from Python alone: no ``alembic.ini`` is involved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database

# Beside ``app`` in the repository and in the installed package alike.
_SCRIPTS: Final = Path(__file__).parents[2] / "migrations"

# How long to wait for another process that is migrating.
_TURN_SECONDS: Final = 120.0
_CONNECT_SECONDS: Final = 5.0

# Any number that no other program takes on the same server: "throughl" in ASCII.
_ADVISORY_LOCK: Final = int.from_bytes(b"throughl", "big")


async def upgrade(url: str) -> None:
    """Run the migrations that are missing; several processes may do so at once.

    All of them run in one transaction: after a failure the schema is what it was. Raises
    Unavailable.
    """
    await _run(url, lambda config: command.upgrade(config, "head"))


async def downgrade(url: str, revision: str = "base") -> None:
    """Take migrations back down to a revision; ``base`` drops every table with all data."""
    await _run(url, lambda config: command.downgrade(config, revision))


async def current(url: str) -> str | None:
    """Give the revision that the database is at; None where no migration has run."""
    database = Database(url, pool_size=1)
    try:
        async with database.read() as connection:
            return await connection.run_sync(
                lambda sync: MigrationContext.configure(sync).get_current_revision()
            )
    finally:
        await database.close()


def head() -> str:
    """Give the revision that this code expects."""
    revision = ScriptDirectory.from_config(_configuration()).get_current_head()
    if revision is None:
        raise RuntimeError(f"there are no migrations in {_SCRIPTS}")
    return revision


def _configuration() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


async def _run(url: str, migrate: Callable[[Config], None]) -> None:
    def run(connection: Connection) -> None:
        config = _configuration()
        config.attributes["connection"] = connection
        migrate(config)

    # The pragma that SQLite's wait becomes has to be set before the transaction begins.
    timeout_seconds = _TURN_SECONDS if url.startswith("sqlite") else _CONNECT_SECONDS
    database = Database(url, pool_size=1, timeout_seconds=timeout_seconds)
    try:
        # On SQLite the transaction is BEGIN IMMEDIATE, and thereby the lock.
        async with database.write() as connection:
            if database.dialect == "postgresql":
                await _take_turn(connection)
            await connection.run_sync(run)
    finally:
        await database.close()


async def _take_turn(connection: AsyncConnection) -> None:
    wait_ms = int(_TURN_SECONDS * 1000)
    await connection.execute(text(f"SET LOCAL statement_timeout = {wait_ms}"))
    await connection.execute(text(f"SET LOCAL lock_timeout = {wait_ms}"))
    # Held until the transaction ends. Alembic reads the revision after this line, so whoever
    # waited here finds nothing left to do.
    await connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    # Building an index on a large table takes as long as it takes.
    await connection.execute(text("SET LOCAL statement_timeout = 0"))
