"""Which models there are, and which one a question gets."""

from __future__ import annotations

import pytest

from app.domain.errors import UnknownModel
from app.models.build import build_models
from app.models.circuit import CircuitState
from app.models.demo.model import DemoModel
from app.models.guarded import GuardedModel
from app.models.registry import ModelCondition, ModelDescription, ModelRegistry
from app.models.servers import ModelServer

SERVER = ModelServer(id="some/model-7b", base_url="http://127.0.0.1:9/v1")


async def test_there_is_always_the_demo_model() -> None:
    models = build_models()

    assert models.default == "demo"
    assert isinstance(models.get(), DemoModel)
    assert models.describe() == [ModelDescription("demo", "Demo", "demo")]
    await models.close()


async def test_a_model_server_adds_its_model_and_makes_it_the_default() -> None:
    models = build_models(servers=[SERVER])

    assert models.default == "some/model-7b"
    assert isinstance(models.get(None), GuardedModel)
    assert isinstance(models.get("demo"), DemoModel)
    assert models.describe() == [
        ModelDescription("some/model-7b", "some/model-7b", "openai_compatible"),
        ModelDescription("demo", "Demo", "demo"),
    ]
    await models.close()


async def test_the_default_can_be_chosen() -> None:
    models = build_models(servers=[SERVER], default="demo")

    assert models.default == "demo"
    assert [model.id for model in models.describe()] == ["demo", "some/model-7b"]
    await models.close()


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownModel) as refused:
        build_models().get("gpt-9")

    assert "demo" in refused.value.detail
    assert refused.value.extra == {"models": ["demo"]}


def test_what_cannot_work_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="two models"):
        build_models(servers=[SERVER, SERVER])
    with pytest.raises(ValueError, match="one of demo"):
        build_models(default="gpt-9")
    with pytest.raises(ValueError, match="two models"):
        ModelRegistry([DemoModel(delay_ms=0), DemoModel(delay_ms=0)], default="demo")


async def test_models_of_one_host_and_port_share_a_circuit() -> None:
    models = build_models(
        servers=[
            ModelServer(id="a", base_url="http://127.0.0.1:9/v1"),
            ModelServer(id="b", base_url="http://somebody:password@127.0.0.1:9/other/v1", name="B"),
            ModelServer(id="c", base_url="http://127.0.0.1:10/v1"),
        ]
    )
    a, b, c = (models.get(one) for one in "abc")
    assert isinstance(a, GuardedModel)
    assert isinstance(b, GuardedModel)
    assert isinstance(c, GuardedModel)

    for _ in range(5):
        a.circuit.failed(a.circuit.enter())

    assert b.name == "B"
    assert [one.circuit for one in (a, b)] == [a.circuit] * 2
    assert models.conditions() == [
        ModelCondition("a", CircuitState.OPEN, 0, 0, False),
        ModelCondition("b", CircuitState.OPEN, 0, 0, False),
        ModelCondition("c", CircuitState.CLOSED, 0, 0, False),
    ]
    await models.close()


async def test_closing_closes_every_model() -> None:
    class Closable(DemoModel):
        closed = False

        async def close(self) -> None:
            self.closed = True

    model = Closable(delay_ms=0)
    await ModelRegistry([model], default="demo").close()

    assert model.closed
