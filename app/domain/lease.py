"""The right to write one session's log, for a short time, under a fencing token."""

from __future__ import annotations

from typing import NamedTuple


class Lease(NamedTuple):
    """Who may write, and under which token; a later lease on a session has a larger token."""

    session_id: str
    node_id: str
    token: int

    @property
    def owner(self) -> str:
        """The value of ``session:owner:{sid}`` while this lease holds."""
        return f"{self.node_id}:{self.token}"
