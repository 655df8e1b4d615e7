"""A model with all that keeps a bad day of its server from becoming ours."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import Final, NamedTuple

import structlog

from app.models.bounds import timely
from app.models.circuit import Circuit
from app.models.client import GenerationRequest, ModelClient, ModelFailed, Pieces
from app.models.room import Room

_BEGUN: Final = GenerationRequest("", "", (), kept="So far")
"""Asks of no answer in particular whether it could be gone on with."""

logger = structlog.get_logger(__name__)


class Patience(NamedTuple):
    """How long a model is waited for, and how often it is asked again."""

    first_seconds: float
    """Longest wait for an answer's first piece, in each try."""
    silence_seconds: float
    """Longest wait for each further piece."""
    retries: int
    """How often it is asked again after a failure that may pass."""
    retry_after_seconds: float
    """Longest time that a server may ask us to wait before the next try."""
    pause_seconds: float = 0.5
    """Pause before the first retry, doubled for each further one, give or take a half."""

    def pause(self, failure: ModelFailed, tries: int) -> float | None:
        """Give the seconds before the next try; None where there is to be none."""
        if not failure.again or tries >= self.retries:
            return None
        # Workers that were turned away together must not come back together.
        jittered = self.pause_seconds * float(2**tries) * random.uniform(0.5, 1.5)  # noqa: S311
        if failure.after_seconds is None:
            return jittered
        if failure.after_seconds > self.retry_after_seconds:
            return None
        return failure.after_seconds + jittered


class GuardedModel:
    """A ModelClient around another, one try of which it repeats, times and counts.

    A question waits for its place, then each try passes the circuit. A try is repeated only before
    its first piece: what was said cannot be taken back.
    """

    def __init__(
        self, model: ModelClient, *, circuit: Circuit, room: Room, patience: Patience
    ) -> None:
        self.circuit = circuit
        self.room = room
        self._model = model
        self._patience = patience
        self._has_answered = False

    @property
    def model_id(self) -> str:
        """See ModelClient."""
        return self._model.model_id

    @property
    def name(self) -> str:
        """See ModelClient."""
        return self._model.name

    @property
    def kind(self) -> str:
        """See ModelClient."""
        return self._model.kind

    @property
    def continues(self) -> bool:
        """See ModelClient."""
        return self._model.continues

    async def continues_from(self, request: GenerationRequest) -> bool:
        """See ModelClient."""
        return await self._model.continues_from(request)

    async def learn(self) -> None:
        """Find out whether it goes on, where a server that has answered can be asked.

        Nothing is asked before its first answer; one that could not say is asked again after the
        next.
        """
        if self._has_answered:
            self._has_answered = False
            await self._model.continues_from(_BEGUN)

    async def generate(self, request: GenerationRequest) -> Pieces:
        """See ModelClient."""
        async with self.room.place(request.user_id):
            tries = 0
            while True:
                pause = None
                answer = self._once(request)
                said = False
                async with aclosing(answer):
                    try:
                        async for piece in answer:
                            said = True
                            yield piece
                    except ModelFailed as failure:
                        pause = None if said else self._patience.pause(failure, tries)
                        if pause is None:
                            raise
                        logger.info(
                            "model_asked_again",
                            model=self.model_id,
                            message_id=request.message_id,
                            error=failure.answer_code,
                            after_ms=round(pause * 1000),
                        )
                if pause is None:
                    return
                await asyncio.sleep(pause)
                tries += 1

    async def close(self) -> None:
        """See ModelClient."""
        await self._model.close()

    async def _once(self, request: GenerationRequest) -> Pieces:
        trial = self.circuit.enter()
        known = False
        timed = timely(
            self._model.generate(request),
            first_seconds=self._patience.first_seconds,
            silence_seconds=self._patience.silence_seconds,
        )
        try:
            async with aclosing(timed):
                async for piece in timed:
                    if not known:
                        known = self._has_answered = True
                        self.circuit.succeeded(trial)
                    yield piece
        except ModelFailed as failure:
            if not known:
                known = True
                (self.circuit.failed if failure.ails else self.circuit.succeeded)(trial)
            raise
        finally:
            if not known:
                self.circuit.left(trial)
