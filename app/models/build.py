"""The models that an operator has set up, made from plain values."""

from __future__ import annotations

from collections.abc import Sequence

from app.models.circuit import Circuit
from app.models.client import ModelClient
from app.models.demo.model import DEMO_MODEL_ID, DemoModel
from app.models.guarded import GuardedModel, Patience
from app.models.registry import ModelRegistry
from app.models.room import Room
from app.models.servers import ModelLimits, ModelServer


def build_models(
    *,
    servers: Sequence[ModelServer] = (),
    limits: ModelLimits | None = None,
    default: str | None = None,
    demo_delay_ms: int = 35,
) -> ModelRegistry:
    """Make the demo model and those of the servers.

    Models of one host and port share a circuit: when it is away, it is away for all of them.
    ``default`` None is the first server's model where there is one, else the demo. Raises
    ValueError for a default that does not exist, and for two models of one id.
    """
    limits = limits or ModelLimits()
    clients: list[ModelClient] = [DemoModel(delay_ms=demo_delay_ms)]
    circuits: dict[str, Circuit] = {}
    for server in servers:
        circuit = circuits.setdefault(
            server.upstream,
            Circuit(failures=limits.circuit_failures, seconds=limits.circuit_seconds),
        )
        clients.append(_guarded(server, limits, circuit))
    preferred = servers[0].id if servers else DEMO_MODEL_ID
    return ModelRegistry(clients, default=preferred if default is None else default)


def _guarded(server: ModelServer, limits: ModelLimits, circuit: Circuit) -> GuardedModel:
    # Only where it is asked for: the library takes longer to load than all of ours together.
    from app.models.openai_compatible import OpenAICompatibleModel  # noqa: PLC0415

    model = OpenAICompatibleModel(
        base_url=server.base_url,
        api_key=server.api_key,
        model=server.model or server.id,
        model_id=server.id,
        name=server.name,
        connect_seconds=limits.connect_seconds,
        context_tokens=server.context_tokens or limits.context_tokens,
        system_prompt=server.system_prompt or limits.system_prompt,
        continues=server.continues,
    )
    return GuardedModel(
        model,
        circuit=circuit,
        room=Room(
            places=server.max_concurrent or limits.concurrency, wait_seconds=limits.wait_seconds
        ),
        patience=Patience(
            first_seconds=limits.first_token_seconds,
            silence_seconds=limits.silence_seconds,
            retries=limits.retries,
            retry_after_seconds=limits.retry_after_seconds,
        ),
    )
