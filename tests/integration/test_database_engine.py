"""Connections: every wait is bounded, what cannot be reached says so, readers do not queue."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import exc, insert, select, text

from app.db.engine import Database
from app.db.tables import users
from app.db.users import ensure_user
from app.domain.errors import Unavailable
from tests.support.conversations import NOON
from tests.support.databases import NewDatabase
from tests.support.postgresql import PostgresqlServer


async def test_a_database_that_is_there_answers(database: Database) -> None:
    await database.ping()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://localhost/db",
        "sqlite://",
        "sqlite:///:memory:",
        "/var/lib/throughline.db",
        "",
    ],
)
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"database|SQLite"):
        Database(url)


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
async def test_an_sqlite_url_may_name_its_driver(scheme: str, tmp_path: Path) -> None:
    database = Database(f"{scheme}:///{tmp_path / 'file.db'}")
    await database.ping()
    await database.close()
    assert (tmp_path / "file.db").exists()


@pytest.mark.postgresql
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
async def test_a_postgresql_url_may_name_its_driver(scheme: str, new_database: NewDatabase) -> None:
    url = new_database("postgresql").replace("postgresql", scheme, 1)
    database = Database(url)
    await database.ping()
    await database.close()


@pytest.mark.postgresql
async def test_options_of_a_postgresql_url_are_kept(new_database: NewDatabase) -> None:
    database = Database(f"{new_database('postgresql')}&options=-c%20work_mem%3D7MB")
    async with database.read() as connection:
        settings = [
            (await connection.execute(text(f"SHOW {name}"))).scalar_one()
            for name in ("work_mem", "lock_timeout", "statement_timeout", "timezone")
        ]
    await database.close()
    assert settings == ["7MB", "5s", "10s", "UTC"]


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'missing' / 'file.db'}")
    with pytest.raises(Unavailable):
        await database.ping()
    await database.close()


def test_a_file_that_cannot_be_opened_leaves_no_thread_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's thread reports to the event loop, which must not be gone by then."""
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)

    async def fail_to_open() -> None:
        database = Database(f"sqlite:///{tmp_path / 'missing' / 'file.db'}")
        with pytest.raises(Unavailable):
            await database.ping()
        await database.close()

    for _ in range(100):
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(asyncio.run, fail_to_open()).result()

    assert died == []


async def test_a_server_that_refuses_is_unavailable() -> None:
    with socket.socket() as closed:
        # Bound and not listening: nobody else gets the port, and it refuses.
        closed.bind(("127.0.0.1", 0))
        database = Database(f"postgresql://nobody@127.0.0.1:{closed.getsockname()[1]}/none")
        with pytest.raises(Unavailable):
            await database.ping()
        await database.close()


async def test_a_mistake_of_ours_is_not_called_unavailable(database: Database) -> None:
    with pytest.raises(exc.DBAPIError):
        async with database.read() as connection:
            await connection.execute(text("SELECT * FROM no_such_table"))


async def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    async def insert_and_fail() -> None:
        async with database.write() as connection:
            await connection.execute(insert(users).values(id="ada", created_at=NOON))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await insert_and_fail()
    assert await _user_ids(database) == []


async def test_a_read_neither_waits_for_a_write_nor_sees_it_before_its_end(
    database: Database,
) -> None:
    async with database.write() as connection:
        await connection.execute(insert(users).values(id="ada", created_at=NOON))
        async with asyncio.timeout(2):
            assert await _user_ids(database) == []
    assert await _user_ids(database) == ["ada"]


async def test_a_write_does_not_wait_for_a_read(database: Database) -> None:
    async with database.read() as connection:
        await connection.execute(select(users.c.id))
        async with asyncio.timeout(2):
            await ensure_user(database, user_id="ada", name=None, now=NOON)


@pytest.mark.postgresql
async def test_a_read_cannot_write(new_database: NewDatabase) -> None:
    database = Database(new_database("postgresql"))
    with pytest.raises(Unavailable):
        async with database.read() as connection:
            await connection.execute(insert(users).values(id="ada", created_at=NOON))
    # The connection is fit for writing again.
    await ensure_user(database, user_id="eve", name=None, now=NOON)
    assert await _user_ids(database) == ["eve"]
    await database.close()


async def test_writers_of_one_sqlite_file_wait_for_a_bounded_time(
    new_database: NewDatabase,
) -> None:
    url = new_database("sqlite")
    holder, waiter = Database(url), Database(url, timeout_seconds=0.1)
    async with holder.write():
        with pytest.raises(Unavailable):
            async with waiter.write():
                pass
    async with waiter.write():
        pass
    await holder.close()
    await waiter.close()


async def test_writers_within_a_process_wait_for_a_bounded_time(
    new_database: NewDatabase,
) -> None:
    database = Database(new_database("sqlite"), timeout_seconds=0.1)
    async with database.write():
        with pytest.raises(Unavailable):
            async with database.write():
                pass
    await database.close()


async def test_a_connection_is_waited_for_a_bounded_time(database_url: str) -> None:
    database = Database(database_url, pool_size=1, timeout_seconds=0.1)
    async with database.read():
        with pytest.raises(Unavailable):
            await database.ping()
    await database.ping()
    await database.close()


@pytest.mark.postgresql
async def test_a_lock_is_waited_for_a_bounded_time(new_database: NewDatabase) -> None:
    url = new_database("postgresql")
    holder, waiter = Database(url), Database(url, timeout_seconds=0.1)
    await ensure_user(holder, user_id="ada", name=None, now=NOON)
    locked = select(users.c.id).with_for_update()
    async with holder.write() as connection:
        await connection.execute(locked)
        with pytest.raises(Unavailable):
            async with waiter.write() as other:
                await other.execute(locked)
    await holder.close()
    await waiter.close()


async def test_many_writers_of_one_file_all_get_their_turn(new_database: NewDatabase) -> None:
    url = new_database("sqlite")
    nodes = [Database(url, pool_size=3) for _ in range(3)]
    await asyncio.gather(
        *(
            ensure_user(nodes[number % 3], user_id=f"u{number:03}", name=None, now=NOON)
            for number in range(90)
        )
    )
    assert len(await _user_ids(nodes[0])) == 90
    for node in nodes:
        await node.close()


@pytest.mark.postgresql
async def test_a_server_that_was_restarted_is_found_again(
    new_database: NewDatabase, postgresql_server: PostgresqlServer
) -> None:
    url = new_database("postgresql")
    database = Database(url)
    await database.ping()
    name = url.split("/")[3].split("?")[0]

    async with database.read() as connection:
        await connection.execute(text("SELECT 1"))
    postgresql_server.disconnect(name)
    # What lies idle in the pool is dead by now.
    await database.ping()

    async def write_through_a_restart() -> None:
        async with database.write() as connection:
            postgresql_server.disconnect(name)
            await connection.execute(text("SELECT 1"))

    with pytest.raises(Unavailable):
        await write_through_a_restart()

    await database.ping()
    await database.close()


async def test_a_moment_keeps_its_microseconds_and_its_zone(database: Database) -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
    async with database.write() as connection:
        await connection.execute(
            insert(users).values(id="ada", created_at=elsewhere, disabled_at=None)
        )
    async with database.read() as connection:
        found = await connection.execute(select(users.c.created_at, users.c.disabled_at))
        created_at, disabled_at = found.one()
    assert created_at == NOON
    assert created_at.utcoffset() == timedelta(0)
    assert disabled_at is None


async def test_moments_sort_as_they_follow(database: Database) -> None:
    moments = [
        NOON,
        NOON + timedelta(microseconds=1),
        NOON.replace(microsecond=999_999),
        NOON.replace(second=1, microsecond=0),
        (NOON + timedelta(hours=1)).astimezone(timezone(timedelta(hours=-9))),
    ]
    async with database.write() as connection:
        for number, moment in enumerate(reversed(moments)):
            await connection.execute(insert(users).values(id=str(number), created_at=moment))
    async with database.read() as connection:
        found = await connection.execute(select(users.c.created_at).order_by(users.c.created_at))
        assert list(found.scalars()) == moments


async def test_a_moment_without_a_zone_is_not_stored(database: Database) -> None:
    naive = datetime(2026, 1, 31)  # noqa: DTZ001
    with pytest.raises(exc.StatementError, match="time zone"):
        await ensure_user(database, user_id="ada", name=None, now=naive)


async def _user_ids(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(select(users.c.id))).scalars())
