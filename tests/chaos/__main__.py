"""``python -m tests.chaos``: one run of chaos from the command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterator

from tests.chaos.run import run
from tests.support.postgresql import postgresql_running


def main() -> int:
    """Run, print the report, and give 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=30)
    parser.add_argument("--web", type=int, default=3)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.seconds:g} s, {options.sessions} sessions", flush=True)
    with _database(options.database) as url:
        report = asyncio.run(
            run(
                seconds=options.seconds,
                seed=options.seed,
                sessions=options.sessions,
                web=options.web,
                workers=options.workers,
                database_url=url,
                say=lambda line: print(line, flush=True),
            )
        )
    print(report.text())
    return 1 if report.breaches else 0


@contextlib.contextmanager
def _database(kind: str) -> Iterator[str | None]:
    if kind == "sqlite":
        yield None
        return
    with postgresql_running() as server:
        yield server.create("chaos")


if __name__ == "__main__":
    sys.exit(main())
