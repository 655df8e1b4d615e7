"""The models that an operator has set up, made from plain values."""

from __future__ import annotations

from app.models.client import ModelClient
from app.models.demo.model import DEMO_MODEL_ID, DemoModel
from app.models.registry import ModelRegistry


def build_models(
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    name: str | None = None,
    default: str | None = None,
    demo_delay_ms: int = 35,
    connect_seconds: float = 10.0,
    silence_seconds: float = 60.0,
    context_characters: int = 24_000,
) -> ModelRegistry:
    """Make the demo model and, given an address and a name, an OpenAI-compatible one beside it.

    ``default`` None is the OpenAI-compatible model where there is one, else the demo. Raises
    ValueError for an address without a name, a default that does not exist, and a model named
    like the demo. A name without an address is left alone: it asks for nothing.
    """
    clients: list[ModelClient] = [DemoModel(delay_ms=demo_delay_ms)]
    if base_url is not None:
        if name is None:
            raise ValueError("a model server needs the name of the model to ask for")
        # Only where it is asked for: the library takes longer to load than all of ours together.
        from app.models.openai_compatible import OpenAICompatibleModel  # noqa: PLC0415

        clients.append(
            OpenAICompatibleModel(
                base_url=base_url,
                api_key=api_key,
                model=name,
                connect_seconds=connect_seconds,
                silence_seconds=silence_seconds,
                context_characters=context_characters,
            )
        )
    preferred = DEMO_MODEL_ID if base_url is None or name is None else name
    return ModelRegistry(clients, default=preferred if default is None else default)
