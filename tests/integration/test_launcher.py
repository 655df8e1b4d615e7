"""``throughline up``: all of it from one command, and none of it left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from app.config import Settings
from app.launcher import LaunchFailed, check_ports, claimed
from app.streams.embedded_directory import EmbeddedDirectory
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)

READY = "Throughline is ready: "


@dataclass
class Launched:
    """A running ``throughline up``."""

    process: asyncio.subprocess.Process
    port: int
    errors: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> dict[int, str]:
        """Give the processes that belong to it, and their command lines."""
        found = {}
        for child in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found[child.pid] = " ".join(child.cmdline())
        return found

    def running(self, role: str) -> list[int]:
        """Give the process ids of a role, or of the embedded ``valkey-server``."""
        return [pid for pid, line in self.children().items() if role in line]

    async def until_ready(self) -> list[str]:
        """Give what it printed up to the last line of the announcement."""
        assert self.process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(60):
            while not lines or "Ctrl-C stops it" not in lines[-1]:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"it ended: {self.errors.read_text()}"
                lines.append(line.strip())
        return lines

    def press_ctrl_c(self) -> None:
        """Send what the terminal sends: SIGINT to the whole foreground process group."""
        os.killpg(self.pid, signal.SIGINT)

    async def ended(self, *, seconds: float = 15.0) -> int:
        async with asyncio.timeout(seconds):
            return await self.process.wait()


def bare_environment(**variables: str) -> dict[str, str]:
    """Give our environment without any setting, so that the defaults are what is tested."""
    names = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, **variables}


def alive(pids: list[int] | dict[int, str]) -> list[int]:
    left = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                left.append(pid)
    return left


def free_ports(count: int) -> int:
    """Give the first of ``count`` neighbouring ports on which nobody listens."""
    for first in range(18_000 + os.getpid() % 1000 * 10, 60_000, count):
        with contextlib.suppress(LaunchFailed):
            check_ports("127.0.0.1", first, count)
            return first
    raise AssertionError("no free ports")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def nothing_left_behind(data_dir: Path) -> Iterator[None]:
    yield
    assert not EmbeddedDirectory(data_dir).socket.exists()


@contextlib.asynccontextmanager
async def launched(
    data_dir: Path, *arguments: str, ports: int = 1, port: int | None = None
) -> AsyncIterator[Launched]:
    errors = data_dir.parent / f"errors-{uuid.uuid4().hex}"
    chosen = port or free_ports(ports)
    command = ["-m", "app", "up", "--port", str(chosen), "--data", str(data_dir), *arguments]
    with errors.open("w") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            env=bare_environment(),
        )
    up = Launched(process, chosen, errors)
    try:
        yield up
    finally:
        if process.returncode is None:
            children = up.children()
            process.kill()
            await process.wait()
            await eventually(lambda: not alive(children), "no process is left")
            EmbeddedDirectory(data_dir).socket.unlink(missing_ok=True)


async def ask(client: httpx.AsyncClient, session_id: str, message: str) -> None:
    response = await client.post("/api/chat", json={"session_id": session_id, "message": message})
    assert response.status_code == 202, response.text


async def answer(client: httpx.AsyncClient, session_id: str) -> str:
    """Wait until the session's last answer is complete; give its text."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(httpx.TransportError):
                items = (await client.get(f"/api/sessions/{session_id}/messages")).json()["items"]
                if items[-1]["is_complete"]:
                    assert items[-1]["status"] == "complete"
                    return str(items[-1]["content"])
            await asyncio.sleep(0.02)


def browser(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)


async def node_id(client: httpx.AsyncClient) -> str:
    try:
        return str((await client.get("/health/live")).json()["node_id"])
    except httpx.TransportError:
        return ""


async def test_one_command_serves_and_one_ctrl_c_ends_all_of_it(data_dir: Path) -> None:
    async with launched(data_dir) as up:
        lines = await up.until_ready()
        assert f"{READY}http://localhost:{up.port}" in lines
        assert f"data: {data_dir}" in lines
        children = up.children()
        assert sorted(line.rsplit("throughline ", 1)[-1] for line in children.values()) == sorted(
            [
                f"web --port {up.port}",
                "worker generation",
                next(line for line in children.values() if "valkey-server unixsocket" in line),
            ]
        )
        async with browser(up.port) as client:
            await ask(client, "first", "/echo still here")
            assert await answer(client, "first") == "still here"
            (link,) = [line.split()[-1] for line in lines if "/sign-in/link?code=" in line]
            opened = await client.get(link.replace("localhost", "127.0.0.1"))
            assert (opened.status_code, opened.headers["location"]) == (303, "/")
            assert "An administrator" in (await client.get("/account")).text
        up.press_ctrl_c()
        assert await up.ended() == 0
        assert alive(children) == []
        assert "Traceback" not in up.errors.read_text()
    async with launched(data_dir) as up:
        await up.until_ready()
        async with browser(up.port) as client:
            assert await answer(client, "first") == "still here"
        os.kill(up.pid, signal.SIGTERM)
        assert await up.ended() == 0


async def test_nodes_and_workers_by_number(data_dir: Path) -> None:
    async with launched(data_dir, "--web", "2", "--workers", "2", ports=2) as up:
        lines = await up.until_ready()
        assert f"another node: http://localhost:{up.port + 1}" in lines
        assert len(up.running("throughline web --port")) == 2
        assert len(up.running("throughline worker generation")) == 2
        async with browser(up.port) as first, browser(up.port + 1) as second:
            await ask(first, "shared", "/echo seen by both")
            assert await answer(second, "shared") == "seen by both"
            names = {await node_id(first), await node_id(second)}
        assert {name.rsplit("-", 1)[0] for name in names} == {"web-1", "web-2"}
        up.press_ctrl_c()
        assert await up.ended() == 0


async def test_what_dies_is_started_again_under_a_new_name(data_dir: Path) -> None:
    async with launched(data_dir) as up:
        await up.until_ready()
        async with browser(up.port) as client:
            before = await node_id(client)
            for role in ("throughline web", "throughline worker", "valkey-server"):
                (pid,) = up.running(role)
                os.kill(pid, signal.SIGKILL)
                await eventually(
                    lambda role=role, pid=pid: up.running(role) not in ([], [pid]),  # type: ignore[misc]
                    f"another {role}",
                )
            await ask_until_accepted(client, "again", "/echo back again")
            assert await answer(client, "again") == "back again"
            assert await node_id(client) != before
        told = up.errors.read_text()
        assert "web-1" in told
        assert "worker-1" in told
        assert "killed by SIGKILL" in told
        up.press_ctrl_c()
        assert await up.ended() == 0


async def ask_until_accepted(client: httpx.AsyncClient, session_id: str, message: str) -> None:
    body = {"session_id": session_id, "message": message, "client_message_id": "one"}
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.post("/api/chat", json=body)).status_code in {200, 202}:
                    return
            await asyncio.sleep(0.05)


async def test_a_launcher_that_is_killed_leaves_nothing_running(data_dir: Path) -> None:
    async with launched(data_dir) as up:
        await up.until_ready()
        children = up.children()
        assert len(children) == 3
        up.process.kill()
        await up.process.wait()
        await eventually(lambda: not alive(children), "no process is left")
    async with launched(data_dir, port=up.port) as again:
        await again.until_ready()
        again.press_ctrl_c()
        assert await again.ended() == 0


async def test_a_second_ctrl_c_hurries(data_dir: Path) -> None:
    async with launched(data_dir) as up:
        await up.until_ready()
        children = up.children()
        (frozen,) = up.running("throughline worker")
        (web,) = up.running("throughline web")
        os.kill(frozen, signal.SIGSTOP)
        up.press_ctrl_c()
        await eventually(lambda: not alive([web]), "the others end in good order")
        assert alive([frozen]) == [frozen]
        up.press_ctrl_c()
        assert await up.ended(seconds=5) == 0
        assert alive(children) == []


async def test_a_second_launcher_on_the_same_data_is_refused_in_one_line(data_dir: Path) -> None:
    async with launched(data_dir) as up:
        await up.until_ready()
        async with launched(data_dir) as second:
            assert await second.ended() == 1
            assert second.errors.read_text() == (
                f"throughline: data directory {data_dir} is in use by process {up.pid}\n"
            )
        up.press_ctrl_c()
        assert await up.ended() == 0


async def test_a_taken_port_is_one_line_and_nothing_is_started(data_dir: Path) -> None:
    port = free_ports(2)
    with socket.create_server(("127.0.0.1", port + 1)):
        async with launched(data_dir, "--web", "2", port=port) as up:
            assert await up.ended() == 1
            assert up.errors.read_text() == (
                f"throughline: port {port + 1} on 127.0.0.1 is taken by another program; "
                "choose one with --port\n"
            )
    assert not (data_dir / "valkey").exists()


@pytest.fixture
def file_for_a_directory(data_dir: Path) -> None:
    data_dir.write_text("a file")


@pytest.fixture
def broken_database(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "throughline.db").write_bytes(b"this is no database" * 100)


@pytest.mark.usefixtures("file_for_a_directory")
async def test_an_unwritable_data_directory_is_one_line(data_dir: Path) -> None:
    async with launched(data_dir) as up:
        assert await up.ended() == 1
        assert up.errors.read_text() == (
            f"throughline: data directory {data_dir} cannot be written: File exists\n"
        )


@pytest.mark.usefixtures("broken_database")
async def test_a_database_that_cannot_be_used_ends_the_start(data_dir: Path) -> None:
    async with launched(data_dir) as up:
        assert await up.ended() == 1
        told = up.errors.read_text().splitlines()
        assert told[-1] == "throughline: the database cannot be used (see above)"


async def test_roles_by_hand_find_the_embedded_server(data_dir: Path) -> None:
    """A second worker can join a running ``throughline up``."""
    async with launched(data_dir, "--workers", "0") as up:
        await up.until_ready()
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "app", "worker", "generation"),
            env=bare_environment(DATA_DIR=str(data_dir), NODE_ID="by-hand"),
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with browser(up.port) as client:
                await ask(client, "joined", "/echo from a worker by hand")
                assert await answer(client, "joined") == "from a worker by hand"
        finally:
            worker.terminate()
            assert await worker.wait() == 0
        up.press_ctrl_c()
        assert await up.ended() == 0
    with contextlib.closing(sqlite3.connect(data_dir / "throughline.db")) as database:
        assert database.execute("SELECT count(*) FROM messages").fetchone() == (2,)


def test_a_claim_ends_with_its_holder(data_dir: Path) -> None:
    refused = pytest.raises(LaunchFailed, match=f"in use by process {os.getpid()}")
    with claimed(data_dir), refused, claimed(data_dir):
        pass
    with claimed(data_dir):
        pass


@pytest.mark.parametrize(
    ("host", "port", "count", "reason"),
    [
        ("127.0.0.1", 65_535, 2, "no 2 ports from 65535 on"),
        ("no.such.host.invalid", 8000, 1, "is not an address"),
        ("192.0.2.1", 8000, 1, "cannot be listened on"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_refused(
    host: str, port: int, count: int, reason: str
) -> None:
    with pytest.raises(LaunchFailed, match=reason):
        check_ports(host, port, count)
