"""One run: a cluster, its talkers, a saboteur, and the report."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.faults import PAUSES, Pauses, Saboteur, schedule
from tests.chaos.outbox import check_outbox
from tests.chaos.report import Breach, Report
from tests.chaos.stage import staged
from tests.chaos.talker import Talker
from tests.support.nodes import Cluster
from tests.support.postgresql import PostgresqlServer

_CALM_SECONDS = 8.0
"""At the end nothing more goes wrong, in a short run for a quarter of its time: what is still open
must end by itself."""

_PROGRESS_SECONDS = 2.0
_BAR_WIDTH = 30


async def run(
    *,
    seconds: float,
    seed: int,
    sessions: int,
    web: int,
    workers: int,
    postgresql: PostgresqlServer | None,
    say: Callable[[str], None],
    kinds: Sequence[str] = (),
    pauses: Pauses = PAUSES,
) -> Report:
    """Do harm for ``seconds`` while ``sessions`` talkers ask and read; give what came of it.

    ``kinds`` are the names of the faults to make, all where there are none; ``pauses`` is the time
    from one to the next.
    """
    report = Report()
    calm = min(_CALM_SECONDS, seconds / 4)
    directory = Path(tempfile.mkdtemp(prefix="throughline-chaos-"))
    async with staged(
        directory, seed=seed, web=web, workers=workers, postgresql=postgresql
    ) as stage:
        began = time.monotonic()
        until = began + seconds
        saboteur = Saboteur(stage, seed, report)
        progress = asyncio.ensure_future(_progress(report, began, until, say))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    saboteur.carry_out(
                        schedule(seed, seconds - calm, kinds=kinds, pauses=pauses), seconds - calm
                    )
                )
                for number in range(sessions):
                    group.create_task(Talker(stage, number, seed, report).talk(until))
        finally:
            progress.cancel()
        await check_outbox(stage.cluster.database_url, report)
        for bug in _bugs(stage.cluster):
            report.breach(Breach.OTHER, bug)
    if report.breaches:
        say(f"what the processes said is kept in {directory}")
    else:
        shutil.rmtree(directory)
    return report


async def _progress(report: Report, began: float, until: float, say: Callable[[str], None]) -> None:
    told = 0
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        for breach in report.breaches[told:]:
            say(f"PROMISE BROKEN: {breach}\n")
        told = len(report.breaches)
        done = min((time.monotonic() - began) / (until - began), 1.0)
        bar = ("#" * int(done * _BAR_WIDTH)).ljust(_BAR_WIDTH, ".")
        now = report.fault_now.name if report.fault_now else ""
        say(
            f"[{bar}] {time.monotonic() - began:4.0f} s, {report.asked} answers ended,"
            f" {len(report.faults)} faults, {len(report.breaches)} promises broken"
            f"{f'; now: {now}' if now else ''}"
        )


def _bugs(cluster: Cluster) -> list[str]:
    """Give what the processes themselves call a bug in their logs."""
    return [
        f"{log.stem}: {line[:300]}"
        for log in sorted(cluster.directory.glob("*.log"))
        for line in log.read_text(errors="replace").splitlines()
        if "_crashed" in line
        or "unexpected error" in line
        or "session_log_refused" in line
        or line.startswith("Traceback")
    ]
