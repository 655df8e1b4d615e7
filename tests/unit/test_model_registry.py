"""Which models there are, and which one a question gets."""

from __future__ import annotations

import pytest

from app.domain.errors import UnknownModel
from app.models.build import build_models
from app.models.demo.model import DemoModel
from app.models.openai_compatible import OpenAICompatibleModel
from app.models.registry import ModelDescription, ModelRegistry


async def test_there_is_always_the_demo_model() -> None:
    models = build_models()

    assert models.default == "demo"
    assert isinstance(models.get(), DemoModel)
    assert models.describe() == [ModelDescription("demo", "Demo", "demo")]
    await models.close()


async def test_a_model_server_adds_its_model_and_makes_it_the_default() -> None:
    models = build_models(base_url="http://127.0.0.1:9/v1", name="some/model-7b")

    assert models.default == "some/model-7b"
    assert isinstance(models.get(None), OpenAICompatibleModel)
    assert isinstance(models.get("demo"), DemoModel)
    assert models.describe() == [
        ModelDescription("some/model-7b", "some/model-7b", "openai_compatible"),
        ModelDescription("demo", "Demo", "demo"),
    ]
    await models.close()


async def test_the_default_can_be_chosen() -> None:
    models = build_models(base_url="http://127.0.0.1:9/v1", name="some-model", default="demo")

    assert models.default == "demo"
    assert [model.id for model in models.describe()] == ["demo", "some-model"]
    await models.close()


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownModel) as refused:
        build_models().get("gpt-9")

    assert "demo" in refused.value.detail
    assert refused.value.extra == {"models": ["demo"]}


def test_what_cannot_work_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="needs the name"):
        build_models(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ValueError, match="one of demo"):
        build_models(default="gpt-9")
    with pytest.raises(ValueError, match="two models"):
        ModelRegistry([DemoModel(delay_ms=0), DemoModel(delay_ms=0)], default="demo")


async def test_closing_closes_every_model() -> None:
    class Closable(DemoModel):
        closed = False

        async def close(self) -> None:
            self.closed = True

    model = Closable(delay_ms=0)
    await ModelRegistry([model], default="demo").close()

    assert model.closed
