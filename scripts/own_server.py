"""A server for the scripts that show one: ``throughline up`` in a temporary place."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_READY = "Throughline is ready: "
_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_KEPT_VARIABLES = ("HOME", "LANG", "PATH", "TMPDIR")


@contextlib.contextmanager
def running_server(*options: str) -> Iterator[str]:
    """Run everything on a free port until the block ends; give the address (``http://…``).

    ``options`` are those of ``throughline up``; for the rest the settings are the defaults,
    whatever the environment says. Raises RuntimeError where the server does not become ready
    within a minute.
    """
    command = [str(Path(sys.executable).parent / "throughline"), "up", "--port", str(_free_port())]
    variables = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="throughline-") as data:
        process = subprocess.Popen(
            [*command, "--data", data, *options],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        # A launcher that never says anything must not hold the script for ever.
        watchdog = threading.Timer(_READY_SECONDS, process.terminate)
        watchdog.start()
        try:
            address = _announced(process.stdout)
            watchdog.cancel()
            yield address
        finally:
            watchdog.cancel()
            process.terminate()
            try:
                process.communicate(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _announced(output: IO[str] | None) -> str:
    for line in output or ():
        if line.startswith(_READY):
            return line.removeprefix(_READY).strip()
    raise RuntimeError("the server did not become ready; run `throughline up` to see why")


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
