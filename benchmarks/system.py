"""What is measured: everything on this machine, in an empty folder, with a model of our own.

Also the percentiles that all of them print.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.streams.embedded_directory import EmbeddedDirectory

HOST = "127.0.0.1"
_START_SECONDS = 60.0
_SETTINGS = {
    "LOG_LEVEL": "warning",
    "WORKER_CONCURRENCY": "2000",
    "ENVIRONMENT": "development",
}


@dataclass(frozen=True)
class System:
    """One web node, one worker and the embedded server."""

    port: int
    redis_url: str
    roles: dict[str, psutil.Process]
    """The processes: ``web``, ``worker`` and ``redis``."""

    @property
    def url(self) -> str:
        """Where the web node is."""
        return f"http://{HOST}:{self.port}"


@contextmanager
def running_system(worker: str, **settings: str) -> Iterator[System]:
    """Run everything until the block ends; ``worker`` is the module with the worker's model."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        environment = os.environ | _SETTINGS | {"DATA_DIR": folder} | settings
        command = str(Path(sys.executable).with_name("throughline"))
        server = subprocess.Popen(
            [command, "up", "--workers", "0", "--port", str(port), "--data", folder],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(port)
            working = subprocess.Popen([sys.executable, "-m", worker], env=environment)
            try:
                roles = _roles(server.pid) | {"worker": psutil.Process(working.pid)}
                yield System(port, EmbeddedDirectory(Path(folder)).url, roles)
            finally:
                working.terminate()
                working.wait(timeout=20)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=20)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Give a percentile of values in order."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _roles(pid: int) -> dict[str, psutil.Process]:
    found: dict[str, psutil.Process] = {}
    for child in psutil.Process(pid).children(recursive=True):
        line = " ".join(child.cmdline())
        if "throughline web" in line or "-m app web" in line:
            found["web"] = child
        elif "-server" in line:
            found["redis"] = child
    return found


def wait_until_ready(port: int) -> None:
    """Wait for a web node on this port."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://{HOST}:{port}/health/ready", timeout=1)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the server did not become ready")


def free_port() -> int:
    """Give a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
