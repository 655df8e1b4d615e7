"""What the handlers work with, put together by the composition root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.datastructures import State

from app.chat.following import Following
from app.chat.service import Chat
from app.telemetry import Metrics
from app.web.auth import Gatekeeper
from app.web.condition import Check
from app.web.rendering import Rendering

_KEY: Final = "parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The layers below, and the few values that the web layer needs of its own."""

    chat: Chat
    following: Following
    gatekeeper: Gatekeeper
    metrics: Metrics
    rendering: Rendering
    openapi: dict[str, Any]
    """The document of ``GET /schema``."""
    checks: Mapping[str, Check]
    """Of ``GET /health`` by component; ``database`` is one of them."""
    node_id: str
    retry_ms: int
    """What ``retry:`` tells a client of a stream on average."""
    send_timeout_seconds: float
    """How long one write to a stream may take before its client is dropped."""


def as_state(parts: Parts) -> State:
    """Keep the parts where ``parts_of`` finds them."""
    return State({_KEY: parts})


def parts_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Parts:
    """Give the parts to a handler."""
    parts = connection.app.state[_KEY]
    if not isinstance(parts, Parts):  # pragma: no cover
        message = "the application was not made by create_application"
        raise TypeError(message)
    return parts
