"""Children are kept running, ended together, and never outlive whoever started them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

import psutil
import pytest

from app.supervision import Child, GaveUp, Patience, Supervisor, ending, run_once
from tests.support.waiting import eventually

QUICK = Patience(first_backoff_seconds=0.01, longest_backoff_seconds=0.02, stop_seconds=0.5)
FOR_EVER = "import signal; print('up', flush=True); signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + FOR_EVER


def child(name: str, code: str, file: Path | None = None) -> Child:
    """Make a child that runs Python code; each start adds a line to ``file``."""
    if file is not None:
        code = f"import os; print(os.getpid(), file=open({str(file)!r}, 'a')); {code}"
    return Child(name=name, command=(sys.executable, "-c", code), environment=lambda: os.environ)


def starts(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def started(file: Path, count: int) -> bool:
    return len(starts(file)) == count


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@contextlib.asynccontextmanager
async def supervised(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.create_task(supervisor.run())
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await supervisor.stop(asyncio.Event())


async def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    supervisor = Supervisor([child("one", FOR_EVER, log), child("two", FOR_EVER)], QUICK)
    async with supervised(supervisor):
        await eventually(lambda: len(supervisor.pids) == 2, "both children run")
        supervisor.settle()
        other = supervisor.pids["two"]
        for count in (1, 2, 3, 4):
            await eventually(partial(started, log, count), f"start {count}")
            os.kill(starts(log)[-1], signal.SIGKILL)
        await eventually(lambda: len(starts(log)) == 5, "a fifth start")
        assert supervisor.pids["two"] == other
    assert [pid for pid in starts(log) if alive(pid)] == []


async def test_each_start_asks_for_its_environment_anew(tmp_path: Path) -> None:
    file = tmp_path / "names"
    numbers = iter(range(10))

    def environment() -> Mapping[str, str]:
        return {**os.environ, "NODE_ID": f"node-{next(numbers)}"}

    code = f"import os; print(os.environ['NODE_ID'], file=open({str(file)!r}, 'a'))"
    supervisor = Supervisor([Child("one", (sys.executable, "-c", code), environment)], QUICK)
    with pytest.raises(GaveUp):
        await supervisor.run()
    assert file.read_text().split() == ["node-0", "node-1", "node-2"]


@pytest.mark.parametrize("status", [2, 78])
async def test_a_child_that_refuses_its_settings_is_not_tried_again(
    tmp_path: Path, status: int
) -> None:
    log = tmp_path / "starts"
    supervisor = Supervisor(
        [child("web-1", f"raise SystemExit({status})", log), child("two", FOR_EVER)], QUICK
    )
    with pytest.raises(GaveUp, match="web-1 refused to start with these settings"):
        await supervisor.run()
    assert len(starts(log)) == 1
    await supervisor.stop(asyncio.Event())
    assert supervisor.pids == {}


async def test_a_child_that_never_comes_up_is_given_up(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    supervisor = Supervisor([child("worker-1", "raise SystemExit(1)", log)], QUICK)
    with pytest.raises(GaveUp, match="worker-1 ended 3 times at its start"):
        await supervisor.run()
    assert len(starts(log)) == 3


async def test_a_command_that_does_not_exist_is_given_up() -> None:
    missing = Child("one", ("/no/such/program",), lambda: os.environ)
    with pytest.raises(GaveUp, match="one ended 3 times at its start"):
        await Supervisor([missing], QUICK).run()


async def test_children_may_end_in_good_order(tmp_path: Path) -> None:
    log, ended = tmp_path / "starts", tmp_path / "ended"
    polite = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); "
        f"import atexit; atexit.register(lambda: print('end', file=open({str(ended)!r}, 'a'))); "
        f"print(os.getpid(), file=open({str(log)!r}, 'a')); signal.pause()"
    )
    children = [child(name, f"import os; {polite}") for name in ("one", "two")]
    async with supervised(Supervisor(children, QUICK)):
        await eventually(lambda: len(starts(log)) == 2, "both children run")
    assert ended.read_text().split() == ["end", "end"]
    assert not any(alive(pid) for pid in starts(log))


async def test_a_child_that_does_not_end_is_killed_in_time(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    deaf = DEAF.replace("print('up', flush=True)", f"open({str(ready)!r}, 'w').close()")
    supervisor = Supervisor([child("deaf", deaf)], QUICK)
    running = asyncio.create_task(supervisor.run())
    await eventually(ready.exists, "the child ignores SIGTERM")
    pid = supervisor.pids["deaf"]
    running.cancel()
    async with asyncio.timeout(5):
        await supervisor.stop(asyncio.Event())
    assert not alive(pid)


async def test_a_second_signal_hurries(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    deaf = DEAF.replace("print('up', flush=True)", f"open({str(ready)!r}, 'w').close()")
    supervisor = Supervisor([child("deaf", deaf)], Patience(stop_seconds=3600))
    running = asyncio.create_task(supervisor.run())
    await eventually(ready.exists, "the child ignores SIGTERM")
    running.cancel()
    hurry = asyncio.Event()
    stopping = asyncio.create_task(supervisor.stop(hurry))
    hurry.set()
    async with asyncio.timeout(5):
        await stopping
    assert supervisor.pids == {}


async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    code = textwrap.dedent(
        f"""
        import asyncio, os, sys
        from app.supervision import Child, Supervisor
        code = "import os, signal; print(os.getpid(), file=open({str(log)!r}, 'a'), flush=True); "
        children = [
            Child(name, (sys.executable, "-c", code + {DEAF!r}), lambda: os.environ)
            for name in ("one", "two")
        ]
        asyncio.run(Supervisor(children).run())
        """
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL
    ) as launcher:
        try:
            await eventually(lambda: len(starts(log)) == 2, "both children run")
        finally:
            launcher.kill()
    try:
        await eventually(lambda: not any(alive(pid) for pid in starts(log)), "no child is left")
    finally:
        for pid in starts(log):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_a_program_run_once_is_killed_when_nobody_waits_any_more(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    once = child("once", FOR_EVER, log)
    running = asyncio.create_task(run_once(once.command, os.environ))
    await eventually(lambda: starts(log), "it runs")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not alive(starts(log)[0])


async def test_a_program_run_once_gives_its_status() -> None:
    assert await run_once((sys.executable, "-c", "raise SystemExit(3)"), os.environ) == 3


def test_endings_are_told_in_words() -> None:
    assert ending(1) == "status 1"
    assert ending(-9) == "killed by SIGKILL"
