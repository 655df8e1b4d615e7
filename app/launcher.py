"""``throughline up``: everything on one machine, from one command, and ended by one Ctrl-C.

The order at the start: the data directory is claimed, the embedded server runs, the database is
migrated, then web nodes and workers are started as processes of their own, and the local model
where it is asked for. The order at the end: web nodes and workers together, so that the workers
hand over while Redis and the model still answer; then the model and the embedded server.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

from app.accounts.passwords import Passwords
from app.composition import accounts_of, database_of, issuer_of
from app.config import Settings, environment_with
from app.domain.errors import ChatError
from app.file_lock import holder, note_holder, take_lock
from app.local_model import LOCAL_MODEL_ID, PLACES, LocalModelMissing, Weights, find_weights
from app.streams.connection import connect
from app.streams.embedded import EmbeddedRedis, EmbeddedServerError
from app.streams.revocations import Revocations
from app.supervision import Child, GaveUp, Supervisor, run_once

_READY_SECONDS = 60.0
_PROBE_SECONDS = 0.1
_HIGHEST_PORT = 65_535
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not bound
_THIS_MACHINE = {"127.0.0.1", "::1", *_EVERY_ADDRESS}


class LaunchFailed(Exception):
    """It cannot be started, or not be kept running; the message is one sentence for a person."""


async def up(settings: Settings, *, web: int, workers: int) -> int:
    """Run everything until SIGINT, SIGTERM or SIGHUP; give the exit status.

    0 after one of these, 1 after a failure that was named in one line on stderr. A second signal
    kills what has not ended yet. Nothing is left running in either case.
    """
    stopping, hurry = asyncio.Event(), asyncio.Event()

    def asked_to_stop() -> None:
        (hurry if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked_to_stop)
    try:
        with claimed(settings.data_dir):
            check_ports(settings.host, settings.port, web)
            launch = _Launch(settings, web=web, workers=workers, local=local_model_of(settings))
            await launch.run(stopping, hurry)
    except (LaunchFailed, GaveUp, EmbeddedServerError, LocalModelMissing) as error:
        _say(f"throughline: {error}", file=sys.stderr)
        return 1
    return 0


class _Launch:
    def __init__(
        self, settings: Settings, *, web: int, workers: int, local: LocalModel | None
    ) -> None:
        self._settings = settings
        self._local = local
        self._embedded = None if settings.redis_url else EmbeddedRedis(settings.data_dir)
        self._ports = [settings.port + number for number in range(web)]
        self._supervisor = Supervisor(
            [
                *(
                    Child(
                        name=f"web-{number}",
                        command=role_command("web", "--port", str(port)),
                        environment=self._environment(f"web-{number}", PORT=str(port)),
                    )
                    for number, port in enumerate(self._ports, start=1)
                ),
                *(
                    Child(
                        name=f"worker-{number}",
                        command=role_command("worker", "generation"),
                        environment=self._environment(f"worker-{number}"),
                    )
                    for number in range(1, workers + 1)
                ),
            ]
        )
        # Ended after the workers: an answer that breaks off while its worker hands it over would
        # be stored as failed.
        self._model_supervisor = Supervisor(
            []
            if local is None
            else [
                Child(
                    name="model",
                    command=role_command("model", "--port", str(local.port)),
                    environment=lambda: environment_with(MODEL_LOCAL_KEY=local.key),
                )
            ]
        )

    async def run(self, stopping: asyncio.Event, hurry: asyncio.Event) -> None:
        working = asyncio.create_task(self._work())
        asked = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
            else:
                _say("Stopping (Ctrl-C again to hurry).")
        finally:
            working.cancel()
            asked.cancel()
            await asyncio.gather(working, asked, return_exceptions=True)
            await self._supervisor.stop(hurry)
            await self._model_supervisor.stop(hurry)
            if self._embedded is not None:
                await self._embedded.stop()

    async def _work(self) -> None:
        if self._embedded is not None:
            await self._embedded.start()
        migrate = role_command("migrate")
        if await run_once(migrate, self._environment("migrate")()) != 0:
            raise LaunchFailed("the database cannot be used (see above)")
        try:
            async with asyncio.TaskGroup() as group:
                if self._embedded is not None:
                    group.create_task(self._embedded.watch())
                group.create_task(self._model_supervisor.run())
                group.create_task(self._supervisor.run())
                group.create_task(self._announce())
        except* (LaunchFailed, GaveUp) as failures:
            raise failures.exceptions[0] from None

    async def _announce(self) -> None:
        host = _EVERY_ADDRESS.get(self._settings.host, self._settings.host)
        for number, port in enumerate(self._ports, start=1):
            try:
                async with asyncio.timeout(_READY_SECONDS):
                    await _until_ready(host, port)
            except TimeoutError:
                raise LaunchFailed(
                    f"web-{number} is not ready after {_READY_SECONDS:.0f} s (see above)"
                ) from None
        if self._local is not None:
            await self._until_model_ready(self._local)
        self._supervisor.settle()
        self._model_supervisor.settle()
        shown = "localhost" if self._settings.host in _THIS_MACHINE else self._settings.host
        addresses = [f"http://{_in_url(shown)}:{port}" for port in self._ports]
        _say(f"\nThroughline is ready: {addresses[0]}")
        for address in addresses[1:]:
            _say(f"  another node: {address}")
        if self._settings.is_development:
            link = f"{addresses[0]}/sign-in/link?code={await administrator_code(self._settings)}"
            _say(f"  sign in as administrator (once, within an hour): {link}")
        if self._local is not None:
            _say(f"  local model: {self._local.weights.described}")
        _say(f"  data: {self._settings.data_dir}")
        _say("  Ctrl-C stops it.\n")

    async def _until_model_ready(self, local: LocalModel) -> None:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await _until_ready("127.0.0.1", local.port, "/health")
        except TimeoutError:
            raise LaunchFailed(
                f"the local model is not ready after {_READY_SECONDS:.0f} s (see above)"
            ) from None

    def _environment(self, name: str, **more: str) -> Callable[[], Mapping[str, str]]:
        settings = self._settings
        chosen = {} if settings.model_default is None else {"MODEL_DEFAULT": settings.model_default}
        if self._local is not None:
            chosen["MODELS"] = self._local.beside(settings.models)

        def fresh() -> Mapping[str, str]:
            return environment_with(
                ENVIRONMENT=settings.environment,
                HOST=settings.host,
                DATA_DIR=str(settings.data_dir),
                REDIS_URL=settings.redis_address,
                DATABASE_URL=settings.database_address,
                # A new name each time: what the process before it held is not this one's.
                NODE_ID=f"{name}-{secrets.token_hex(3)}",
                **chosen,
                **more,
            )

        return fresh


async def administrator_code(settings: Settings) -> str:
    """Give the code of a one-time link that signs in as administrator. Raises LaunchFailed."""
    database, passwords = database_of(settings), Passwords()
    redis = connect(
        settings.redis_address, timeout_seconds=settings.redis_timeout_seconds, max_connections=1
    )
    accounts = accounts_of(
        settings,
        database=database,
        passwords=passwords,
        issuer=issuer_of(settings),
        revoker=Revocations(redis),
    )
    try:
        return await accounts.administrator_link()
    except ChatError as error:
        raise LaunchFailed(f"no sign-in link can be made: {error}") from error
    finally:
        passwords.close()
        await redis.aclose(close_connection_pool=True)
        await database.close()


class LocalModel(NamedTuple):
    """The local model as this launcher runs it."""

    weights: Weights
    port: int
    key: str
    context_tokens: int

    def beside(self, models: str | None) -> str:
        """Give the list of models with this one after those that the settings name."""
        own = {
            "id": LOCAL_MODEL_ID,
            "name": self.weights.name,
            "base_url": f"http://127.0.0.1:{self.port}/v1",
            "api_key": self.key,
            "context_tokens": self.context_tokens,
            "continues": True,
            "max_concurrent": PLACES,
        }
        return json.dumps([*json.loads(models or "[]"), own])


def local_model_of(settings: Settings) -> LocalModel | None:
    """Give the local model where the settings ask for it, on a port that is free.

    They do by ``MODEL_DEFAULT=local`` or ``MODEL_LOCAL_FILE``. Raises LocalModelMissing.
    """
    if any(server.id == LOCAL_MODEL_ID for server in settings.model_servers):
        return None
    if settings.model_default != LOCAL_MODEL_ID and settings.model_local_file is None:
        return None
    weights = find_weights(settings.model_local_file)
    with contextlib.closing(socket.socket()) as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
    # Whoever may use this machine can reach the port.
    key = secrets.token_urlsafe(24)
    return LocalModel(weights, port, key, settings.model_local_context_tokens)


def role_command(*words: str) -> list[str]:
    """Give the command line that runs a ``throughline`` command with this same Python."""
    script = Path(sys.executable).parent / "throughline"
    return [sys.executable, *([str(script)] if script.is_file() else ["-m", "app"]), *words]


@contextlib.contextmanager
def claimed(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this launcher; raise LaunchFailed where that is not possible."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
        lock = take_lock(data_dir / "launcher.lock")
    except OSError as error:
        raise LaunchFailed(
            f"data directory {data_dir} cannot be written: {error.strerror}"
        ) from error
    if lock is None:
        by = holder(data_dir / "launcher.lock")
        raise LaunchFailed(f"data directory {data_dir} is in use by {by}")
    try:
        note_holder(lock, os.getpid())
        yield
    finally:
        os.close(lock)


def check_ports(host: str, port: int, count: int) -> None:
    """Raise LaunchFailed unless ``count`` ports from ``port`` on can be listened on."""
    if port + count - 1 > _HIGHEST_PORT:
        raise LaunchFailed(f"there are no {count} ports from {port} on (the last is 65535)")
    for wanted in range(port, port + count):
        try:
            found = socket.getaddrinfo(host, wanted, type=socket.SOCK_STREAM)
            for family, kind, protocol, _, address in found[:1]:
                with socket.socket(family, kind, protocol) as trial:
                    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    trial.bind(address)
        except socket.gaierror as error:
            raise LaunchFailed(f"HOST {host!r} is not an address: {error.strerror}") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise LaunchFailed(
                    f"port {wanted} on {host} is taken by another program; choose one with --port"
                ) from error
            raise LaunchFailed(
                f"port {wanted} on {host} cannot be listened on: {error.strerror}"
            ) from error


async def _until_ready(host: str, port: int, path: str = "/health/ready") -> None:
    while True:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(5), _connection(host, port) as (reader, writer):
                request = f"GET {path} HTTP/1.1\r\nHost: {_in_url(host)}:{port}\r\n"
                writer.write(f"{request}Connection: close\r\n\r\n".encode())
                status_line = await reader.readuntil(b"\r\n")
                if status_line.split(b" ")[1] == b"200":
                    return
        await asyncio.sleep(_PROBE_SECONDS)


@contextlib.asynccontextmanager
async def _connection(
    host: str, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _say(line: str, *, file: TextIO | None = None) -> None:
    # The terminal may be gone (SIGHUP), and the end must be orderly all the same.
    with contextlib.suppress(OSError):
        print(line, file=file or sys.stdout, flush=True)
