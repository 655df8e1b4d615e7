"""What a session log promises, whatever holds it.

Two implementations share one contract suite (``tests/contract``): ``redis_log`` is the product,
``memory_log`` serves tests of what stands above it. Each method is one atomic state transition.
Methods that write are safe to send again after a lost reply: a repeat is recognised and changes
nothing. All of them raise ``Unavailable`` when the store cannot be reached in bounded time.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from app.domain.events import Entry, NewEntry
from app.domain.lease import Lease
from app.domain.position import Position


class AppendOutcome(enum.Enum):
    """What became of an append, a start, a finish or a renewal."""

    OK = "OK"
    """Done, or recognised as done before."""
    SUPERSEDED = "SUPERSEDED"
    """Another holds the lease; nothing was written and nothing must be written any more."""
    CANCELLED = "CANCELLED"
    """A stop is requested; nothing was written, the holder is to finish with the text so far."""
    LOST = "LOST"
    """Nobody holds the lease, or the log itself is gone; claim again before writing."""


class ActiveAnswer(NamedTuple):
    """The answer that a session's log is being written with."""

    message_id: str
    attempt: int
    """0 before the first attempt has begun."""
    next_index: int
    """Index of the next entry of text or reasoning within the attempt."""
    text: str
    """Everything appended so far, over all attempts that were continued."""
    reasoning: str = ""
    """What the model thought, likewise."""


class Submitted(NamedTuple):
    """An answer is awaited."""

    position: Position
    """Where the log stands after it."""
    untold: str | None
    """The answer before this one, where its final state never came into the log: its worker died
    between the commit and this."""


class Claimed(NamedTuple):
    """The lease is the caller's; ``active`` is what the log knows of the answer claimed."""

    lease: Lease
    active: ActiveAnswer | None


class Held(NamedTuple):
    """Another worker holds the lease for at most this long."""

    retry_after_ms: int


class Snapshot(NamedTuple):
    """Where a log stands, read in one step."""

    position: Position
    """The last entry; 0-0 where the log has not begun or was lost."""
    active: ActiveAnswer | None


class LogRange(NamedTuple):
    """Entries of the log in order, with what is needed to judge whether they are all there."""

    entries: list[Entry]
    first: Position | None
    """The oldest entry still held; None for a log that is not there."""
    last: Position
    """The newest entry; 0-0 for a log that is not there."""
    original: bool
    """Whether ``first`` is the very first entry that the session ever had."""


class AppendBatch(NamedTuple):
    """What one answer adds in one flush; sent again unchanged until its outcome is known."""

    lease: Lease
    message_id: str
    attempt: int
    first_index: int
    """How many entries of chunks and reasoning the attempt had before this."""
    text: str
    """The chunks joined."""
    entries: Sequence[NewEntry]
    """Chunks and pieces of reasoning, in order."""
    reasoning: str = ""
    """The pieces of reasoning joined."""


class SessionLog(Protocol):
    """The ordered log of everything that happens in each session."""

    async def submit(
        self,
        session_id: str,
        message_id: str,
        attempt: int,
        entries: Sequence[NewEntry],
        *,
        kept: str = "",
        kept_reasoning: str = "",
        pristine: bool,
    ) -> Submitted:
        """Note that an answer is awaited: append ``entries``, make the partial text ``kept``.

        ``attempt`` is the last attempt of the message so far (0 for a new answer), ``kept`` and
        ``kept_reasoning`` what it has already, where it is to be gone on with. ``pristine``
        says that the session never had a log before. A worker that was faster is left alone.
        """
        ...

    async def record(
        self, session_id: str, entries: Sequence[NewEntry], *, pristine: bool
    ) -> Position:
        """Append entries that need no lease (a changed title); begin the log where need be."""
        ...

    async def claim(
        self, session_id: str, message_id: str, node_id: str, ttl_ms: int
    ) -> Claimed | Held:
        """Take the session's lease under a token larger than every one before."""
        ...

    async def start(
        self,
        lease: Lease,
        message_id: str,
        attempt: int,
        *,
        kept: str,
        kept_reasoning: str = "",
        entries: Sequence[NewEntry],
        entries_if_unknown: Sequence[NewEntry],
    ) -> AppendOutcome:
        """Begin an attempt that keeps ``kept`` of the text and reasoning before it.

        ``entries_if_unknown`` go first where the log does not know the answer (it was lost, or
        the worker was faster than ``submit``): the user's message that the answer belongs to.
        """
        ...

    async def append(self, batches: Sequence[AppendBatch]) -> list[AppendOutcome]:
        """Append many answers' chunks in one round trip, each batch atomically for itself."""
        ...

    async def renew(
        self, leases: Sequence[tuple[Lease, str, int]], ttl_ms: int
    ) -> list[AppendOutcome]:
        """Renew many leases in one round trip; each with its answer's message id and attempt."""
        ...

    async def finish(
        self, lease: Lease, message_id: str, attempt: int, entry: NewEntry
    ) -> AppendOutcome:
        """Append the final state, end the answer, trim the turns before it, let the lease go.

        What is active and newer than ``attempt`` (the next question, or the same one again) stays.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Let the lease go and keep the text, for another worker to continue from."""
        ...

    async def cancel(self, session_id: str, message_id: str, attempt: int) -> str | None:
        """Request a stop and tell the owner, whose node id is given (None: nobody owns it).

        It holds for attempts up to ``attempt``, the last when the stop was accepted. One that comes
        late meets the same message asked for again, under a larger number, and leaves it alone.
        """
        ...

    async def snapshot(self, session_id: str) -> Snapshot:
        """Read position and partial text in one step."""
        ...

    async def read(self, session_id: str, after: Position, limit: int) -> LogRange:
        """Read up to ``limit`` entries after a position of the log's current epoch.

        For ``after`` in another epoch, or 0-0, reading starts at the oldest entry held.
        """
        ...

    async def tails(self, session_ids: Sequence[str]) -> list[Position]:
        """Read where many logs stand in one round trip; 0-0 for one that is not there."""
        ...

    async def delete(self, session_id: str, entry: NewEntry) -> None:
        """Publish that the session is gone and drop everything that is kept of it."""
        ...
