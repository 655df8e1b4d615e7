"""The migrations build what the code believes in, from nothing, and from several places at once."""

from __future__ import annotations

import asyncio
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect

from app.db import migrate
from app.db.engine import Database
from app.db.tables import metadata
from app.domain.errors import Unavailable
from tests.support.conversations import Talker
from tests.support.databases import Engine, NewDatabase


@pytest.fixture
def empty_url(database_engine: Engine, empty_database: NewDatabase) -> str:
    return empty_database(database_engine)


async def test_an_empty_database_is_brought_up_to_date(empty_url: str) -> None:
    assert await migrate.current(empty_url) is None

    await migrate.upgrade(empty_url)

    assert await migrate.current(empty_url) == migrate.head()
    await _use(empty_url)


async def test_migrating_again_changes_nothing(empty_url: str) -> None:
    await migrate.upgrade(empty_url)
    await _use(empty_url)

    await migrate.upgrade(empty_url)

    assert await _tables(empty_url) == {*metadata.tables, "alembic_version"}


async def test_migrations_and_tables_say_the_same(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection)
        return list(compare_metadata(context, metadata))

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_partial_indexes_are_partial(database: Database) -> None:
    """Autogenerate does not compare their conditions."""

    def conditions(connection: Connection) -> dict[str, str]:
        key = f"{connection.dialect.name}_where"
        return {
            str(index["name"]): str(index["dialect_options"][key]).lower()
            for table in metadata.tables
            for index in inspect(connection).get_indexes(table)
            if key in index.get("dialect_options", {})
        }

    async with database.read() as connection:
        found = await connection.run_sync(conditions)
    assert set(found) == {
        "uq_messages_unfinished_session",
        "ix_messages_unfinished_id",
        "ix_outbox_unpublished_sequence",
        "ix_chat_sessions_unpurged_purge_at",
        "ix_chat_sessions_kept_updated_at",
        "ix_users_erasing_erasing_since",
    }
    for name in ("uq_messages_unfinished_session", "ix_messages_unfinished_id"):
        assert "queued" in found[name]
        assert "streaming" in found[name]
        assert "complete" not in found[name]
    assert "published_at is null" in found["ix_outbox_unpublished_sequence"]
    assert "purge_at is not null" in found["ix_chat_sessions_unpurged_purge_at"]
    assert "deleted_at is null" in found["ix_chat_sessions_kept_updated_at"]
    assert "erasing_since is not null" in found["ix_users_erasing_erasing_since"]


async def test_migrations_can_be_taken_down_again(database_url: str) -> None:
    await migrate.downgrade(database_url)

    assert await migrate.current(database_url) is None
    assert await _tables(database_url) == {"alembic_version"}

    await migrate.upgrade(database_url)
    await _use(database_url)


async def test_a_migration_that_fails_leaves_the_schema_as_it_was(empty_url: str) -> None:
    database = Database(empty_url)
    async with database.write() as connection:
        # The last table of the first migration is in the way.
        await connection.run_sync(metadata.tables["outbox"].create)
    await database.close()

    with pytest.raises(Exception, match="outbox"):
        await migrate.upgrade(empty_url)

    assert await _tables(empty_url) == {"outbox"}


async def test_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from app.db import migrate\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
        "asyncio.run(migrate.upgrade(sys.argv[1]))\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            empty_url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"

    # Only now may any of them go on.
    outputs = await asyncio.gather(*(process.communicate(b"go") for process in processes))

    assert [stderr.decode() for _, stderr in outputs] == [""] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert await migrate.current(empty_url) == migrate.head()
    await _use(empty_url)


async def test_tasks_that_migrate_at_once_migrate_once(empty_url: str) -> None:
    await asyncio.gather(*(migrate.upgrade(empty_url) for _ in range(4)))

    assert await migrate.current(empty_url) == migrate.head()


async def test_a_database_that_cannot_be_reached_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await migrate.upgrade("sqlite:////no/such/directory/file.db")


async def _use(url: str) -> None:
    database = Database(url)
    talker = await Talker(database).arrive()
    await talker.exchange("One?", "1")
    await database.close()


async def _tables(url: str) -> set[str]:
    database = Database(url)
    async with database.read() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await database.close()
    return set(names)
