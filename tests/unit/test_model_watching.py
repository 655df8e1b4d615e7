"""Metrics of models: as they are at the moment of asking."""

from __future__ import annotations

from app.models.build import build_models
from app.models.guarded import GuardedModel
from app.models.servers import ModelLimits, ModelServer
from app.models.watching import watch
from app.telemetry import create_metrics


async def test_the_metrics_say_how_the_models_do() -> None:
    models = build_models(
        servers=[
            ModelServer(id="a", base_url="http://127.0.0.1:9/v1"),
            ModelServer(id="b", base_url="http://127.0.0.1:10/v1"),
        ],
        limits=ModelLimits(circuit_failures=1),
    )
    metrics = create_metrics()
    watch(models, metrics)

    def said(name: str) -> list[float | None]:
        return [
            metrics.registry.get_sample_value(f"throughline_model_{name}", {"model": model})
            for model in ("a", "b", "demo")
        ]

    first = models.get("a")
    assert isinstance(first, GuardedModel)
    assert said("circuit") == [0, 0, None]
    first.circuit.failed(first.circuit.enter())
    async with first.room.place("u"):
        assert said("answering") == [1, 0, None]
    assert said("circuit") == [2, 0, None]
    assert said("answering") == said("waiting") == [0, 0, None]
    await models.close()
