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
import statistics
import time

import psutil

from benchmarks.client import Measured, ask_and_read
from benchmarks.system import HOST, System, percentile, running_system

_QUESTIONS_A_SECOND = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, nargs="+", default=[1, 100, 300])
    parser.add_argument("--rate", type=float, default=20.0, help="chunks a second per answer")
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each answer")
    options = parser.parse_args()
    with running_system("benchmarks.worker") as system:
        _print_head()
        for answers in options.answers:
            asyncio.run(_measure(system, answers, options.rate, options.seconds))


async def _measure(system: System, answers: int, rate: float, seconds: float) -> None:
    roles, port = system.roles, system.port
    question = f"{int(rate * seconds)} {1000 / rate:g}"
    await ask_and_read(HOST, port, "5 1")
    before = {role: _cpu(process) for role, process in roles.items()}
    reader_before = time.process_time()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(answers):
            tasks.append(group.create_task(ask_and_read(HOST, port, question)))
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
        f"{answers:>8} {chunks:>8} {statistics.median(first):>7.1f} ms"
        f" {percentile(first, 99):>5.0f} ms"
        f" {percentile(latencies, 50):>7.1f} ms {percentile(latencies, 95):>5.1f} ms"
        f" {percentile(latencies, 99):>5.1f} ms"
        f"   {cost['web']:.0f}, {cost['worker']:.0f}, {cost['redis']:.0f}, ({cost['reader']:.0f})"
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
