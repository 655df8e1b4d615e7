"""One attempt at an answer, under one lease."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import structlog

from app.db import attempts
from app.db.results import AlreadyFinal, Begun, Exhausted, Gone, StopRequested
from app.domain.errors import AnswerFailed, ChatError, Unavailable
from app.domain.events import Start, new_entry
from app.domain.messages import AnswerError, Message, Status, Usage
from app.models.bounds import bounded
from app.models.client import (
    LENGTH,
    Finished,
    GenerationRequest,
    ModelClient,
    Turn,
)
from app.streams.session_log import AppendOutcome, Claimed
from workers.generation.flusher import INTERRUPTIONS, AnswerWriter, Flusher
from workers.generation.held import HeldAnswer, Interruption
from workers.generation.kept import Kept, Remembered, kept_of

if TYPE_CHECKING:
    from datetime import datetime

    from app.chat.settling import Settling
    from app.db.engine import Database
    from app.events.envelope import EventBuilder
    from app.models.registry import ModelRegistry
    from app.streams.session_log import SessionLog
    from app.telemetry import Metrics

_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0)
_HANDOVER_DRAIN_SECONDS = 1.0

T = TypeVar("T")

logger = structlog.get_logger(__name__)


class Ended(enum.Enum):
    """What is to become of the job."""

    DONE = enum.auto()
    """The answer is final, in the database and in the log (or gone with its session)."""
    LEFT = enum.auto()
    """It is another's now, or a part is away: whoever finds the job idle goes on."""
    HANDED_OVER = enum.auto()
    """The lease is free and the text is kept: another is to go on at once."""
    AGAIN = enum.auto()
    """The lease or the log was lost: claim again."""


class AnswerLimits(NamedTuple):
    """What bounds an answer."""

    lease_ms: int
    max_attempts: int
    max_turns: int
    max_characters: int
    storing_seconds: float
    """How long a final state is tried to be stored before the job is left to another."""


class _Produced(NamedTuple):
    """How a model's answer ended."""

    status: Status
    error: AnswerError | None
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class AnswerParts:
    """What answers are made with."""

    node_id: str
    database: Database
    log: SessionLog
    settling: Settling
    models: ModelRegistry
    events: EventBuilder
    flusher: Flusher
    limits: AnswerLimits
    clock: Callable[[], datetime]
    metrics: Metrics


class Attempt:
    """One attempt under one lease."""

    def __init__(
        self,
        parts: AnswerParts,
        held: HeldAnswer,
        claimed: Claimed,
        remembered: Remembered | None,
    ) -> None:
        self.remembered = remembered
        self._parts = parts
        self._held = held
        self._claimed = claimed
        self._began = time.monotonic()
        self._first_chunk_seconds: float | None = None

    async def run(self) -> Ended:
        """Begin in the database, then do what the state found there asks for."""
        parts = self._parts
        now = parts.clock()
        found = await attempts.begin_attempt(
            parts.database,
            message_id=self._held.job.message_id,
            max_attempts=parts.limits.max_attempts,
            max_turns=parts.limits.max_turns,
            now=now,
            events=lambda begun: [
                (parts.events.stream_recovered if begun.recovered else parts.events.stream_started)(
                    begun.message, now=now
                )
            ],
        )
        match found:
            case Gone():
                await parts.log.release(self._held.lease)
                return Ended.DONE
            case AlreadyFinal():
                return await self._tell_final(found.message)
            case StopRequested():
                return await self._settle(found, Status.CANCELLED, None)
            case Exhausted():
                error = AnswerError(
                    "attempts_exhausted",
                    f"The answer was tried {parts.limits.max_attempts} times without success",
                )
                return await self._settle(found, Status.FAILED, error)
            case Begun():
                return await self._generate(found)

    async def _tell_final(self, message: Message) -> Ended:
        """Append a final state that the log may not have: its worker died in between.

        Also where the log knows nothing of the answer: the next question may have taken its place
        there. A final state that is there twice changes nothing for a client.
        """
        outcome = await self._parts.log.finish(
            self._held.lease, message.message_id, message.attempt, new_entry(message)
        )
        return _ENDED[outcome]

    async def _settle(
        self, found: StopRequested | Exhausted, status: Status, error: AnswerError | None
    ) -> Ended:
        final = await self._parts.settling.settle(
            self._claimed,
            found.message,
            status,
            error,
            user_id=found.user_id,
            in_reply_to=found.user_message.message_id,
        )
        if final is None:
            return Ended.AGAIN
        self._report(final, chunks=0)
        return Ended.DONE

    async def _generate(self, begun: Begun) -> Ended:
        parts, held = self._parts, self._held
        message = begun.message
        held.attempt = begun.attempt
        model = self._model(begun)
        kept, request = await self._request(begun, model)
        begin = Start(
            message.message_id,
            begun.attempt,
            message.model or "",
            kept.text,
            kept.reasoning or None,
        )

        async def start() -> AppendOutcome:
            return await parts.log.start(
                held.lease,
                message.message_id,
                begun.attempt,
                kept=kept.text,
                kept_reasoning=kept.reasoning,
                entries=[new_entry(begin)],
                entries_if_unknown=[new_entry(begun.user_message)],
            )

        outcome = await self._stubbornly(start)
        if outcome is not AppendOutcome.OK:
            held.interrupt(INTERRUPTIONS[outcome])
        writer = AnswerWriter(parts.flusher, held, begun.attempt, kept)
        produced = await self._produce(model, request, writer)
        drained = await self._drain(writer)
        self.remembered = Remembered(begun.attempt, writer.kept)
        match held.interrupted.result() if held.interrupted.done() else None:
            case Interruption.SUPERSEDED:
                return Ended.LEFT
            case Interruption.LOST:
                await self._give_back(begun.attempt)
                return Ended.AGAIN
            case Interruption.CANCELLED:
                produced = _Produced(Status.CANCELLED, None, None)
            case Interruption.HANDOVER if produced is None or not drained:
                await self._give_back(begun.attempt)
                await parts.log.release(held.lease)
                return Ended.HANDED_OVER
        if produced is None or not (drained or produced.status is Status.CANCELLED):
            # Redis is away for longer than is worth waiting for. What the log does not have must
            # not be stored as if it were whole; whoever has the job next goes on from the log.
            await self._give_back(begun.attempt)
            return Ended.LEFT
        return await self._finish(begun, writer, produced)

    def _model(self, begun: Begun) -> ModelClient | None:
        try:
            return self._parts.models.get(begun.message.model)
        except ChatError:
            # Asked for on a node with other settings: a visible failure, not a lost worker.
            return None

    async def _request(
        self, begun: Begun, model: ModelClient | None
    ) -> tuple[Kept, GenerationRequest]:
        kept = kept_of(begun, self._claimed.active, self.remembered)
        request = GenerationRequest(
            begun.message.message_id,
            begun.message.session_id,
            [Turn(turn.role, turn.content) for turn in begun.conversation],
            kept.text,
            begun.user_id,
        )
        if kept.text and (model is None or not await model.continues_from(request)):
            return Kept(), request._replace(kept="")
        return kept, request

    async def _produce(
        self, model: ModelClient | None, request: GenerationRequest, writer: AnswerWriter
    ) -> _Produced | None:
        """Let the model write until it ends or fails; None where it was interrupted before."""
        pump = asyncio.ensure_future(self._pump(model, request, writer))
        try:
            await asyncio.wait((pump, self._held.interrupted), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not pump.done():
                pump.cancel()
        try:
            return await pump
        except asyncio.CancelledError:
            return None
        except AnswerFailed as failure:
            error = AnswerError(failure.answer_code, failure.detail)
        except Exception:
            logger.exception("answer_crashed", message_id=request.message_id)
            error = AnswerError("internal_error", "The answer failed")
        return _Produced(Status.FAILED, error, None)

    async def _drain(self, writer: AnswerWriter) -> bool:
        """Wait, within bounds, until the log has what was written; tell whether it has all."""
        bound = self._parts.limits.storing_seconds
        if self._held.interrupted.done():
            bound = _HANDOVER_DRAIN_SECONDS
        try:
            async with asyncio.timeout(bound):
                await writer.drain()
        except TimeoutError:
            return False
        return not writer.refused

    async def _pump(
        self, model: ModelClient | None, request: GenerationRequest, writer: AnswerWriter
    ) -> _Produced:
        if model is None:
            raise AnswerFailed("model_not_found", "This node does not have the model")
        finished = Finished(None, "")
        async with aclosing(
            bounded(
                model.generate(request),
                max_characters=self._parts.limits.max_characters - len(request.kept),
            )
        ) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finished):
                    finished = piece
                    continue
                if isinstance(piece, str) and self._first_chunk_seconds is None:
                    self._first_chunk_seconds = time.monotonic() - self._began
                await writer.write(piece)
        cut = AnswerError("length_stopped", "The model's limit on the length ended the answer")
        return _Produced(
            Status.COMPLETE, cut if finished.finish_reason == LENGTH else None, finished.usage
        )

    async def _give_back(self, attempt: int) -> None:
        """Say that the attempt ended without being the model's or the worker's fault."""
        await attempts.release_attempt(
            self._parts.database,
            message_id=self._held.job.message_id,
            attempt=attempt,
            now=self._parts.clock(),
        )

    async def _finish(self, begun: Begun, writer: AnswerWriter, produced: _Produced) -> Ended:
        parts = self._parts
        now = parts.clock()
        # A stop waits for no Redis that is out of reach. Were its last batch left out, whoever read
        # it live would have seen words that nobody finds again.
        shown = writer.shown
        duration_ms = int((time.monotonic() - self._began) * 1000)

        async def store() -> Message | None:
            return await attempts.finish_answer(
                parts.database,
                message_id=begun.message.message_id,
                attempt=begun.attempt,
                status=produced.status,
                content=shown.text,
                reasoning=shown.reasoning or None,
                error=produced.error,
                usage=produced.usage,
                now=now,
                events=lambda ended: [
                    parts.events.stream_ended(
                        ended, total_chunks=writer.chunks, duration_ms=duration_ms, now=now
                    ),
                    parts.events.chat_message(
                        ended,
                        user_id=begun.user_id,
                        now=now,
                        in_reply_to=begun.user_message.message_id,
                        duration_ms=duration_ms,
                    ),
                ],
            )

        final = await self._stubbornly(store)
        if final is None:
            # Another attempt began meanwhile; its worker has the last word.
            return Ended.LEFT

        async def tell() -> AppendOutcome:
            return await parts.log.finish(
                self._held.lease, final.message_id, final.attempt, new_entry(final)
            )

        outcome = await self._stubbornly(tell)
        self._report(final, writer.chunks)
        return _ENDED[outcome]

    async def _stubbornly(self, write: Callable[[], Awaitable[T]]) -> T:
        """Repeat a write that may safely be repeated while its part is away, within bounds."""
        until = time.monotonic() + self._parts.limits.storing_seconds
        tries = 0
        while True:
            try:
                return await write()
            except Unavailable:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(_RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)])
            tries += 1

    def _report(self, final: Message, chunks: int) -> None:
        seconds = time.monotonic() - self._began
        metrics, model = self._parts.metrics, final.model or ""
        metrics.answers.labels(model=model, outcome=final.status.value).inc()
        metrics.answer_seconds.labels(model=model).observe(seconds)
        if self._first_chunk_seconds is not None:
            metrics.answer_first_chunk_seconds.labels(model=model).observe(
                self._first_chunk_seconds
            )
        logger.info(
            "answer_ended",
            session_id=final.session_id,
            message_id=final.message_id,
            model=model,
            attempt=final.attempt,
            outcome=final.status.value,
            error=final.error.code if final.error else None,
            chunks=chunks,
            characters=len(final.content),
            first_chunk_ms=None
            if self._first_chunk_seconds is None
            else round(self._first_chunk_seconds * 1000),
            duration_ms=round(seconds * 1000),
        )


_ENDED = {
    AppendOutcome.OK: Ended.DONE,
    AppendOutcome.SUPERSEDED: Ended.LEFT,
    AppendOutcome.LOST: Ended.AGAIN,
    AppendOutcome.CANCELLED: Ended.AGAIN,
}
