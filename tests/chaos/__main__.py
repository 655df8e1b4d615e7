"""``python -m tests.chaos``: one run of chaos from the command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator

from tests.chaos.faults import FAULTS, schedule
from tests.chaos.run import run
from tests.support.postgresql import PostgresqlServer, postgresql_running


def main() -> int:
    """Run, print the report, and give 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--web", type=int, default=3)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument(
        "--faults",
        type=_kinds,
        default=[],
        help=f"only these, by a part of their names, with commas between: {', '.join(FAULTS)}",
    )
    parser.add_argument("--plan", action="store_true", help="only print what would be done when")
    options = parser.parse_args()
    if options.plan:
        for fault in schedule(options.seed, options.seconds, kinds=options.faults):
            print(f"{fault.at_seconds:6.1f} s  {fault.name}")
        return 0
    print(f"seed {options.seed}, {options.seconds:g} s, {options.sessions} sessions", flush=True)
    with _database(options.database) as postgresql:
        report = asyncio.run(
            run(
                seconds=options.seconds,
                seed=options.seed,
                sessions=options.sessions,
                web=options.web,
                workers=options.workers,
                postgresql=postgresql,
                say=_teller(),
                kinds=options.faults,
            )
        )
    if sys.stdout.isatty():
        print()
    print(report.text())
    return 1 if report.breaches else 0


def _kinds(parts: str) -> list[str]:
    """Give the names of the faults that these are parts of."""
    found = [name for name in FAULTS if any(part.strip() in name for part in parts.split(","))]
    if not found:
        raise argparse.ArgumentTypeError(f"no fault has any of {parts!r} in its name")
    return found


def _teller() -> Callable[[str], None]:
    """Show progress in one line of a terminal, else in a line each."""
    if not sys.stdout.isatty():
        return lambda line: print(line, flush=True)
    width = shutil.get_terminal_size().columns - 1
    return lambda line: print(f"\r{line[:width].ljust(width)}", end="", flush=True)


@contextlib.contextmanager
def _database(kind: str) -> Iterator[PostgresqlServer | None]:
    if kind == "sqlite":
        yield None
        return
    with postgresql_running() as server:
        yield server


if __name__ == "__main__":
    sys.exit(main())
