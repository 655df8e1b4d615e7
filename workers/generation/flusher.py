"""Appending what all of a worker's answers say and think together.

Models hand over pieces one by one; every few milliseconds whatever came in goes to Redis in one
pipeline with one script call per answer. No answer ever awaits a round trip per chunk.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from app.domain.errors import Unavailable
from app.domain.events import Chunk, EventType, NewEntry, Thought, new_entry
from app.domain.messages import REASONING_MAX_CHARACTERS
from app.ending import end
from app.models.client import Reasoning
from app.streams.session_log import AppendBatch, AppendOutcome
from workers.generation.held import HeldAnswer, Interruption
from workers.generation.kept import Kept

if TYPE_CHECKING:
    from app.streams.session_log import SessionLog
    from app.telemetry import Metrics

_PENDING_ENTRIES = 512
"""Entries that an answer may have waiting while Redis is slow or away; then its model waits."""

_BATCH_ENTRIES = 128
"""Entries of one answer in one script call, so that no call holds Redis for long."""

_CUT = "…"
"""Stands for the reasoning that is not kept."""

_BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5)

INTERRUPTIONS = {
    AppendOutcome.CANCELLED: Interruption.CANCELLED,
    AppendOutcome.SUPERSEDED: Interruption.SUPERSEDED,
    AppendOutcome.LOST: Interruption.LOST,
}

logger = structlog.get_logger(__name__)


class AnswerWriter:
    """What one attempt says and thinks, on its way into the log."""

    def __init__(self, flusher: Flusher, held: HeldAnswer, attempt: int, kept: Kept) -> None:
        """Go on after ``kept``, which the log has already."""
        self.held = held
        self.chunks = 0
        """Chunks that the log has of this attempt."""
        self.refused = False
        """Whether the log refused any: then ``kept`` is not all that was written."""
        self._flusher = flusher
        self._attempt = attempt
        self._said = [kept.text]
        self._thought = [kept.reasoning]
        self._entries = 0
        self._next_index = 0
        self._offset = len(kept.text)
        self._thought_offset = len(kept.reasoning)
        self._pending: list[tuple[str | Reasoning, NewEntry]] = []
        self._in_flight: AppendBatch | None = None
        self._moved = asyncio.Event()

    @property
    def kept(self) -> Kept:
        """What the log has, over all attempts that were continued."""
        return Kept("".join(self._said), "".join(self._thought))

    @property
    def shown(self) -> Kept:
        """What a reader may have been given: what the log has, and a batch of unknown outcome."""
        kept, batch = self.kept, self._in_flight
        if batch is None:
            return kept
        return Kept(kept.text + batch.text, kept.reasoning + batch.reasoning)

    async def write(self, piece: str | Reasoning) -> None:
        """Queue a piece; waits only while the queue is full.

        Reasoning beyond its bound is dropped, and «…» says so once.
        """
        message_id = self.held.job.message_id
        if isinstance(piece, Reasoning):
            room = REASONING_MAX_CHARACTERS - len(_CUT) - self._thought_offset
            if room < 0:
                return
            if len(piece.text) > room:
                piece = Reasoning(piece.text[:room] + _CUT)
            entry = new_entry(Thought(message_id, self._attempt, self._thought_offset, piece.text))
            self._thought_offset += len(piece.text)
        else:
            entry = new_entry(
                Chunk(message_id, self._attempt, self._next_index, self._offset, piece)
            )
            self._next_index += 1
            self._offset += len(piece)
        self._pending.append((piece, entry))
        self._flusher.wake(self)
        while len(self._pending) >= _PENDING_ENTRIES and self._may_send:
            await self._progress()

    async def drain(self) -> None:
        """Wait until nothing is in flight, and nothing waits that may still be sent.

        Only then is ``kept`` what the log has. Unbounded while Redis is away: bound it outside.
        """
        while self._in_flight or (self._pending and self._may_send):
            await self._progress()

    @property
    def _may_send(self) -> bool:
        interrupted = self.held.interrupted
        return not interrupted.done() or interrupted.result() is Interruption.HANDOVER

    async def _progress(self) -> None:
        self._moved.clear()
        if self.held.interrupted.done():
            await self._moved.wait()
            return
        moved = asyncio.ensure_future(self._moved.wait())
        try:
            await asyncio.wait((moved, self.held.interrupted), return_when=asyncio.FIRST_COMPLETED)
        finally:
            moved.cancel()

    def batch(self) -> AppendBatch | None:
        """Give what is to be sent; unchanged until its outcome is known.

        A request whose reply was lost may still be carried out later. Because the very same one
        is sent again, the server recognises it by its first index and count.
        """
        if self._in_flight is None and self._pending and self._may_send:
            taken = self._pending[:_BATCH_ENTRIES]
            del self._pending[:_BATCH_ENTRIES]
            self._in_flight = AppendBatch(
                self.held.lease,
                self.held.job.message_id,
                self._attempt,
                self._entries,
                "".join(piece for piece, _ in taken if isinstance(piece, str)),
                [entry for _, entry in taken],
                "".join(piece.text for piece, _ in taken if isinstance(piece, Reasoning)),
            )
        return self._in_flight

    def sent(self, outcome: AppendOutcome) -> bool:
        """Take the outcome of the batch in flight; tell whether more is waiting."""
        batch = self._in_flight
        self._in_flight = None
        if outcome is AppendOutcome.OK and batch is not None:
            self._said.append(batch.text)
            self._thought.append(batch.reasoning)
            self._entries += len(batch.entries)
            self.chunks += sum(entry.type == EventType.CHUNK for entry in batch.entries)
        elif outcome is not AppendOutcome.OK:
            # Noted apart from the interruption: that keeps its first reason, which may be an
            # older one under which the text would be taken for whole.
            self.refused = True
            self.held.interrupt(INTERRUPTIONS[outcome])
        self._moved.set()
        return bool(self._pending)


class Flusher:
    """One loop that sends what all writers of this worker have waiting."""

    def __init__(self, log: SessionLog, *, interval_ms: int, metrics: Metrics) -> None:
        """Gather for ``interval_ms`` before each flush; 0 sends as soon as nothing is in flight."""
        self._log = log
        self._interval_seconds = interval_ms / 1000
        self._metrics = metrics
        self._waiting: dict[AnswerWriter, None] = {}
        self._awake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to flush."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="flusher")

    async def close(self) -> None:
        """Stop flushing."""
        await end(self._task)

    def wake(self, writer: AnswerWriter) -> None:
        """Note that a writer has something waiting."""
        self._waiting[writer] = None
        self._awake.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._awake.wait()
            if self._interval_seconds:
                await asyncio.sleep(self._interval_seconds)
            self._awake.clear()
            try:
                await self._flush()
                failures = 0
            except Unavailable as failure:
                if failures == 0:
                    logger.warning("flush_failed", reason=failure.detail)
                await asyncio.sleep(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])
                failures += 1
                self._awake.set()

    async def _flush(self) -> None:
        writers = list(self._waiting)
        batches = [(writer, batch) for writer in writers if (batch := writer.batch())]
        self._waiting = {writer: None for writer, _ in batches}
        if not batches:
            return
        began = time.perf_counter()
        outcomes = await self._log.append([batch for _, batch in batches])
        self._metrics.flush_seconds.observe(time.perf_counter() - began)
        count = sum(len(batch.entries) for _, batch in batches)
        self._metrics.flush_entries.observe(count)
        self._metrics.chunks_appended.inc(count)
        for (writer, _), outcome in zip(batches, outcomes, strict=True):
            if writer.sent(outcome):
                self._awake.set()
            else:
                self._waiting.pop(writer, None)
