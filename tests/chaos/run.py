"""One run: a cluster, its talkers, a saboteur, and the report."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.faults import Saboteur, schedule
from tests.chaos.report import Report
from tests.chaos.talker import Talker
from tests.support.nodes import Cluster, running_cluster

_CALM_SECONDS = 8.0
"""At the end nothing more goes wrong: what is still open must end by itself."""

_PROGRESS_SECONDS = 5.0


async def run(
    *,
    seconds: float,
    seed: int,
    sessions: int,
    web: int,
    workers: int,
    database_url: str | None,
    say: Callable[[str], None],
) -> Report:
    """Do harm for ``seconds`` while ``sessions`` talkers ask and read; give what came of it."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="throughline-chaos-") as name:
        async with running_cluster(
            Path(name), web=web, workers=workers, database_url=database_url
        ) as cluster:
            until = time.monotonic() + seconds
            saboteur = Saboteur(cluster, seed, report)
            progress = asyncio.ensure_future(_progress(report, until, say))
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    saboteur.carry_out(schedule(seed, max(seconds - _CALM_SECONDS, 0)))
                )
                for number in range(sessions):
                    group.create_task(Talker(cluster, number, seed, report).talk(until))
            progress.cancel()
            report.breaches.extend(_bugs(cluster))
    return report


async def _progress(report: Report, until: float, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        left = max(until - time.monotonic(), 0)
        harm = sum(report.faults.values())
        say(
            f"{left:5.0f} s left: {report.asked} answers ended, {harm} faults,"
            f" {len(report.breaches)} promises broken"
        )


def _bugs(cluster: Cluster) -> list[str]:
    """Give what the processes themselves call a bug in their logs."""
    return [
        f"{log.stem}: {line[:300]}"
        for log in sorted(cluster.directory.glob("*.log"))
        for line in log.read_text(errors="replace").splitlines()
        if "_crashed" in line or "unexpected error" in line or line.startswith("Traceback")
    ]
