"""The models that this installation has, by id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from app.domain.errors import UnknownModel
from app.models.circuit import CircuitState
from app.models.client import ModelClient
from app.models.guarded import GuardedModel


class ModelDescription(msgspec.Struct, frozen=True):
    """A model as ``GET /api/models`` shows it."""

    id: str
    name: str
    kind: str


class ModelCondition(NamedTuple):
    """How a model of a server does, as this process sees it at the moment."""

    model_id: str
    circuit: CircuitState
    answering: int
    waiting: int
    continues: bool
    """Whether it is known to go on with an answer that it had begun."""


class ModelRegistry:
    """Hands out models by id; ``default`` is the id for questions that name none.

    Raises ValueError for two models of one id and for a default that is not among them.
    """

    def __init__(self, clients: Iterable[ModelClient], *, default: str) -> None:
        self._clients: dict[str, ModelClient] = {}
        for client in clients:
            if client.model_id in self._clients:
                raise ValueError(f"there are two models with the id {client.model_id!r}")
            self._clients[client.model_id] = client
        if default not in self._clients:
            raise ValueError(f"the default model must be one of {', '.join(self._clients)}")
        self.default = default

    def get(self, model_id: str | None = None) -> ModelClient:
        """Give the model, or the default one for None; raise UnknownModel, naming the known."""
        wanted = self.default if model_id is None else model_id
        try:
            return self._clients[wanted]
        except KeyError:
            known = list(self._clients)
            raise UnknownModel(
                f"There is no such model; there are {', '.join(known)}", models=known
            ) from None

    def describe(self) -> list[ModelDescription]:
        """List the models, the default one first."""
        clients = sorted(self._clients.values(), key=lambda one: one.model_id != self.default)
        return [ModelDescription(one.model_id, one.name, one.kind) for one in clients]

    def conditions(self) -> list[ModelCondition]:
        """Tell how the models of servers do; the demo depends on nobody."""
        return [
            ModelCondition(
                client.model_id,
                client.circuit.state,
                client.room.taken,
                client.room.waiting,
                client.continues,
            )
            for client in self._guarded()
        ]

    async def learn(self) -> None:
        """Find out of the models of servers that have answered whether they go on."""
        await asyncio.gather(*(client.learn() for client in self._guarded()))

    def _guarded(self) -> list[GuardedModel]:
        return [one for one in self._clients.values() if isinstance(one, GuardedModel)]

    async def close(self) -> None:
        """Close every model; answers still being generated fail."""
        for client in self._clients.values():
            await client.close()
