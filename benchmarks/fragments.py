"""What a chunk costs the web node that shows it, early and late in a long answer.

Feeds one answer to ``FragmentEncoder`` chunk by chunk, as a connection of the page has it, and
prints CPU time and HTML per chunk for the first and the last tenth, and the one dearest chunk::

    python -m benchmarks.fragments [--chunks 10000]

Nothing else runs: no sockets, no Redis, no browser.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import NamedTuple

import app
from app.domain.events import Chunk, Entry, NewEntry, Start, new_entry
from app.domain.frames import Entries
from app.domain.position import Position
from app.models.build import build_models
from app.web.assets import Assets
from app.web.fragments import FragmentEncoder
from app.web.model_choice import ModelChoice
from app.web.rendering import Rendering
from benchmarks.texts import KINDS, pieces

_MESSAGE_ID = "01900000-0000-7000-8000-000000000001"
_TENTHS = 10


class Tenth(NamedTuple):
    """One of ten parts of an answer, per chunk."""

    cpu_us: float
    html_bytes: float
    dearest_us: float
    """CPU time of the chunk that took most: the node's other work waits for so long."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000)
    chunks = parser.parse_args().chunks
    print(
        f"{'answer':>8} {'characters':>11} {'CPU µs: first':>15} {'last':>6}"
        f" {'dearest: first':>16} {'last':>7} {'HTML bytes: first':>19} {'last':>6}"
    )
    for kind in KINDS:
        # What is loaded at first use is no chunk's cost.
        measure(kind, _TENTHS)
        characters, tenths = measure(kind, chunks)
        first, last = tenths[0], tenths[-1]
        print(
            f"{kind:>8} {characters:>11} {first.cpu_us:>15.0f} {last.cpu_us:>6.0f}"
            f" {first.dearest_us:>16.0f} {last.dearest_us:>7.0f}"
            f" {first.html_bytes:>19.0f} {last.html_bytes:>6.0f}"
        )


def measure(kind: str, chunks: int) -> tuple[int, list[Tenth]]:
    """Encode an answer of so many chunks; give its length and the cost in each tenth of it."""
    folder = Path(app.__file__).parent
    rendering = Rendering(
        folder / "templates", Assets(folder / "static"), ModelChoice(build_models())
    )
    encoder = FragmentEncoder(rendering, "measured")
    start = Start(message_id=_MESSAGE_ID, attempt=1, model="demo", content="")
    encoder.fragment(_frame(1, new_entry(start)))
    frames, offset = [], 0
    for index, piece in enumerate(itertools.islice(pieces(kind), chunks)):
        chunk = Chunk(_MESSAGE_ID, attempt=1, index=index, offset=offset, chunk=piece)
        frames.append(_frame(index + 2, new_entry(chunk)))
        offset += len(piece)
    tenths = []
    size = chunks // _TENTHS
    for begin in range(0, size * _TENTHS, size):
        html, spent = 0, []
        for frame in frames[begin : begin + size]:
            before = time.thread_time_ns()
            html += len(encoder.fragment(frame).html)
            spent.append((time.thread_time_ns() - before) / 1000)
        tenths.append(Tenth(sum(spent) / size, html / size, max(spent)))
    return offset, tenths


def _frame(seq: int, entry: NewEntry) -> Entries:
    return Entries((Entry(Position(1, seq), entry.type, entry.data),))


if __name__ == "__main__":
    main()
