"""How the models of servers do, as metrics and as reports for the web nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from app.domain.errors import Unavailable
from app.models.circuit import CircuitState

if TYPE_CHECKING:
    from app.models.registry import ModelCondition, ModelRegistry
    from app.telemetry import Metrics

_CIRCUITS = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}


_REPORT_SECONDS = 5.0


async def report(
    models: ModelRegistry, tell: Callable[[Mapping[str, bool], Sequence[str]], Awaitable[None]]
) -> None:
    """Tell every few seconds which models are asked and which go on, until cancelled.

    Nothing for the demo.
    """
    while models.conditions():
        await models.learn()
        conditions = models.conditions()
        with contextlib.suppress(Unavailable):  # the next one will do
            await tell(
                {one.model_id: one.circuit is CircuitState.CLOSED for one in conditions},
                [one.model_id for one in conditions if one.continues],
            )
        await asyncio.sleep(_REPORT_SECONDS)


async def hear(
    models: ModelRegistry,
    read: Callable[[], Awaitable[frozenset[str]]],
    told: Callable[[frozenset[str]], None],
) -> None:
    """Hear every few seconds which models workers know to go on, until cancelled."""
    while models.conditions():
        with contextlib.suppress(Unavailable):  # what was known last is still the likeliest
            told(await read())
        await asyncio.sleep(_REPORT_SECONDS)


def watch(models: ModelRegistry, metrics: Metrics) -> None:
    """Have the metrics look at the models whenever they are asked for."""

    def condition(model_id: str) -> ModelCondition:
        return next(one for one in models.conditions() if one.model_id == model_id)

    def circuit(model_id: str) -> float:
        return _CIRCUITS[condition(model_id).circuit]

    def answering(model_id: str) -> float:
        return condition(model_id).answering

    def waiting(model_id: str) -> float:
        return condition(model_id).waiting

    for model_id in (one.model_id for one in models.conditions()):
        metrics.model_circuit.labels(model=model_id).set_function(partial(circuit, model_id))
        metrics.model_answering.labels(model=model_id).set_function(partial(answering, model_id))
        metrics.model_waiting.labels(model=model_id).set_function(partial(waiting, model_id))
