"""Fixtures for tests that need a database: a fresh one each, migrated, on either engine."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeAlias

import pytest
import uuid_utils

from app.db import migrate
from app.db.engine import Database
from tests.support.postgresql import (
    PostgresqlServer,
    PostgresqlUnavailableError,
    postgresql_running,
)

Engine: TypeAlias = Literal["sqlite", "postgresql"]
NewDatabase: TypeAlias = Callable[[Engine], str]

ENGINES = [
    pytest.param("sqlite", id="sqlite"),
    pytest.param("postgresql", id="postgresql", marks=pytest.mark.postgresql),
]
_TEMPLATE = "throughline_template"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """Run one PostgreSQL server for all tests; skip those that need it where there is none."""
    try:
        with postgresql_running() as server:
            yield server
    except PostgresqlUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"{error} (and CI is set)")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: PostgresqlServer) -> str:
    """Migrate a PostgreSQL database once; copying it is faster than migrating another."""
    _upgrade(postgresql_server.create(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate an SQLite file once."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabase]:
    """Give a function that gives the URL of a new database without any table."""
    created: list[tuple[PostgresqlServer, str]] = []

    def create(engine: Engine) -> str:
        name = f"test_{uuid_utils.uuid7().hex}"
        if engine == "sqlite":
            return f"sqlite:///{tmp_path / name}.db"
        server: PostgresqlServer = request.getfixturevalue("postgresql_server")
        created.append((server, name))
        return server.create(name)

    yield create
    for server, name in created:
        server.drop(name)


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabase]:
    """Give a function that gives the URL of a new, migrated database of an engine."""
    created: list[tuple[PostgresqlServer, str]] = []

    def create(engine: Engine) -> str:
        name = f"test_{uuid_utils.uuid7().hex}"
        if engine == "sqlite":
            path = tmp_path / f"{name}.db"
            shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
            return f"sqlite:///{path}"
        template: str = request.getfixturevalue("postgresql_template")
        server: PostgresqlServer = request.getfixturevalue("postgresql_server")
        created.append((server, name))
        return server.create(name, template=template)

    yield create
    for server, name in created:
        server.drop(name)


@pytest.fixture(params=ENGINES)
def database_engine(request: pytest.FixtureRequest) -> Engine:
    """Run the test once on SQLite and once on PostgreSQL."""
    engine: Engine = request.param
    return engine


@pytest.fixture
def database_url(database_engine: Engine, new_database: NewDatabase) -> str:
    """Give the URL of a new, migrated database; the test runs on both engines."""
    return new_database(database_engine)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a new, migrated database, connected; the test runs on both engines."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def other_node(database_url: str) -> AsyncIterator[Database]:
    """Give the same database over connections of its own, as another process has them."""
    database = Database(database_url)
    yield database
    await database.close()


def _upgrade(url: str) -> None:
    # In a thread of its own: a session's fixture may be asked for while a test's loop runs.
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, migrate.upgrade(url)).result()
