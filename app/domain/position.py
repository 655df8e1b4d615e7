"""Positions in a session log: ``<epoch>-<seq>``."""

from __future__ import annotations

import re
from typing import NamedTuple

from app.domain.errors import InvalidPosition

_WRITTEN = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})", re.ASCII)


class Position(NamedTuple):
    """A place in one session's log; compares by epoch, then by sequence number.

    ``epoch`` is the server time in ms at which the log was begun, ``seq`` counts up by exactly 1
    within an epoch. It is at once the id of an entry and the statement «I have seen everything up
    to here».
    """

    epoch: int
    seq: int

    def __str__(self) -> str:
        """Give the written form, which is also the Redis stream entry id."""
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, written: str) -> Position:
        """Read the written form, at most 16 digits a part; raise InvalidPosition for all else."""
        match = _WRITTEN.fullmatch(written)
        if match is None:
            raise InvalidPosition
        return cls(int(match[1]), int(match[2]))

    def plus(self, count: int) -> Position:
        """Give the position ``count`` entries further on in the same epoch."""
        return Position(self.epoch, self.seq + count)


BEFORE_ALL = Position(0, 0)
"""Where a session stands whose log has not begun."""
