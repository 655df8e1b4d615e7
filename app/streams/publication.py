"""The form of a publication: what ``log.lua`` writes and a node's tail reads."""

from __future__ import annotations

from typing import NamedTuple

from app.domain.events import Entry
from app.domain.position import Position


class Publication(NamedTuple):
    """Entries that were appended together, in order."""

    entries: list[Entry]
    original: bool
    """Whether the first of them is the first that the session ever had."""


def parse_publication(payload: bytes) -> Publication:
    """Read ``<epoch>-<seq>[ original]`` and a line ``<type> <data>`` for each entry."""
    head, *lines = payload.split(b"\n")
    written, _, original = head.partition(b" ")
    epoch_written, _, seq_written = written.partition(b"-")
    epoch, seq = int(epoch_written), int(seq_written)
    entries = []
    for number, line in enumerate(lines, seq):
        kind, _, data = line.partition(b" ")
        entries.append(Entry(Position(epoch, number), kind.decode(), data))
    return Publication(entries, bool(original))
