"""What the handlers work with, put together by the composition root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.datastructures import State

from app.accounts.accounts import Accounts
from app.accounts.erasure import AccountErasure
from app.chat.exporting import Exporting
from app.chat.following import Following
from app.chat.service import Chat
from app.telemetry import Metrics
from app.web.auth import Gatekeeper
from app.web.condition import Check
from app.web.cookies import COOKIES_KEY, Cookies
from app.web.csrf import CSRF_KEY, Csrf
from app.web.limits import Limits
from app.web.proxies import Networks
from app.web.rendering import Rendering

_KEY: Final = "parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The layers below, and the few values that the web layer needs of its own."""

    accounts: Accounts
    erasure: AccountErasure
    exporting: Exporting
    cookies: Cookies
    csrf: Csrf
    is_development: bool
    """Whether a request without credentials acts as the user ``dev``."""
    chat: Chat
    following: Following
    gatekeeper: Gatekeeper
    limits: Limits
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
    trusted_proxies: Networks
    """Whose word for the client's address and scheme is taken."""
    strict_transport: bool
    """Whether browsers are to come by https only."""


def as_state(parts: Parts) -> State:
    """Keep the parts where ``parts_of`` finds them."""
    # What comes before the parts, at the gate, finds its own by itself.
    return State({_KEY: parts, COOKIES_KEY: parts.cookies, CSRF_KEY: parts.csrf})


def parts_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Parts:
    """Give the parts to a handler."""
    parts = connection.app.state[_KEY]
    if not isinstance(parts, Parts):  # pragma: no cover
        message = "the application was not made by create_application"
        raise TypeError(message)
    return parts
