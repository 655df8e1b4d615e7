"""Time to first chunk, latency per chunk and CPU time per delivered chunk.

Starts ``throughline up`` in an empty folder, asks many questions at once, each in a session of its
own with one reader over SSE, and prints one row per number of concurrent answers::

    python -m benchmarks.streaming [--answers 1 100 300] [--rate 20] [--seconds 40]

Questions come 10 a second, so that all answers are being given at once for most of the time.

The worker's model is ``benchmarks.worker``'s, which writes the time at which each piece was made:
latency is measured from the model's hand to the reader's socket, on one machine and one clock.
All processes and the reader share the machine's cores: compare figures of one run with each other.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from benchmarks.client import Measured, ask_and_read

_HOST = "127.0.0.1"
_START_SECONDS = 60.0
_QUESTIONS_A_SECOND = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, nargs="+", default=[1, 100, 300])
    parser.add_argument("--rate", type=float, default=20.0, help="chunks a second per answer")
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each answer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        environment = os.environ | {
            "LOG_LEVEL": "warning",
            "WORKER_CONCURRENCY": "2000",
            "ENVIRONMENT": "development",
            "DATA_DIR": folder,
        }
        command = str(Path(sys.executable).with_name("throughline"))
        server = subprocess.Popen(
            [command, "up", "--workers", "0", "--port", str(port), "--data", folder],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_until_ready(port)
            worker = subprocess.Popen([sys.executable, "-m", "benchmarks.worker"], env=environment)
            try:
                roles = _roles(server.pid) | {"worker": psutil.Process(worker.pid)}
                _print_head()
                for answers in options.answers:
                    asyncio.run(_measure(port, roles, answers, options.rate, options.seconds))
            finally:
                worker.terminate()
                worker.wait(timeout=20)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=20)


async def _measure(
    port: int, roles: dict[str, psutil.Process], answers: int, rate: float, seconds: float
) -> None:
    question = f"{int(rate * seconds)} {1000 / rate:g}"
    await ask_and_read(_HOST, port, "5 1")
    before = {role: _cpu(process) for role, process in roles.items()}
    reader_before = time.process_time()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(answers):
            tasks.append(group.create_task(ask_and_read(_HOST, port, question)))
            # Spread the questions over one pause between chunks, as people would.
            if number % 10 == 9:
                await asyncio.sleep(0.01)
    measured = [task.result() for task in tasks]
    spent = {role: _cpu(process) - before[role] for role, process in roles.items()}
    spent["reader"] = time.process_time() - reader_before
    _print_row(answers, measured, spent)


def _print_head() -> None:
    print(
        f"{'answers':>8} {'chunks':>8} {'first p50':>10} {'p99':>8} {'chunk p50':>10} {'p95':>8}"
        f" {'p99':>8}   CPU µs per chunk: web, worker, redis, (reader)"
    )


def _print_row(answers: int, measured: list[Measured], spent: dict[str, float]) -> None:
    first = sorted(one.first_chunk_ms for one in measured)
    latencies = sorted(ms for one in measured for ms in one.latencies_ms)
    chunks = len(latencies)
    cost = {role: seconds / chunks * 1_000_000 for role, seconds in spent.items()}
    print(
        f"{answers:>8} {chunks:>8} {statistics.median(first):>7.1f} ms {_at(first, 99):>5.0f} ms"
        f" {_at(latencies, 50):>7.1f} ms {_at(latencies, 95):>5.1f} ms"
        f" {_at(latencies, 99):>5.1f} ms"
        f"   {cost['web']:.0f}, {cost['worker']:.0f}, {cost['redis']:.0f}, ({cost['reader']:.0f})"
    )


def _at(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _roles(pid: int) -> dict[str, psutil.Process]:
    found: dict[str, psutil.Process] = {}
    for child in psutil.Process(pid).children(recursive=True):
        line = " ".join(child.cmdline())
        if "throughline web" in line or "-m app web" in line:
            found["web"] = child
        elif "-server" in line:
            found["redis"] = child
    return found


def _wait_until_ready(port: int) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://{_HOST}:{port}/health/ready", timeout=1)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the server did not become ready")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
