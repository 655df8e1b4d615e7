"""An answer that this worker holds the session's lease for."""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.domain.lease import Lease
    from app.streams.jobs import Job


NOT_BEGUN = 2**31
"""Above every attempt's number: no stop in the log is meant for an attempt that is not begun."""


class Interruption(enum.Enum):
    """Why an answer is not written to its end by this attempt."""

    CANCELLED = enum.auto()
    """A stop is requested: finish with the text so far."""
    SUPERSEDED = enum.auto()
    """Another holds the lease: write nothing more, anywhere."""
    LOST = enum.auto()
    """Nobody holds the lease or the log is gone: claim again."""
    HANDOVER = enum.auto()
    """This worker stops: let another continue."""


class HeldAnswer:
    """What renewal, stop and shutdown need to know of an answer in the making."""

    def __init__(self, job: Job, lease: Lease) -> None:
        """Hold ``lease`` for ``job``."""
        self.job = job
        self.lease = lease
        self.attempt = NOT_BEGUN
        """The attempt's number, once the database has begun it and has found no stop."""
        self.interrupted: asyncio.Future[Interruption] = asyncio.get_running_loop().create_future()

    def interrupt(self, why: Interruption) -> None:
        """Say why the attempt is to end; the first reason given is the one that counts."""
        if not self.interrupted.done():
            self.interrupted.set_result(why)
