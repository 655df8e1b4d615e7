"""Probes: is the node alive, does it want traffic, what of it works; and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
from litestar import get
from litestar.response import Response

from app.web.auth import PUBLIC
from app.web.condition import Check, Condition
from app.web.parts import parts_of
from app.web.problems import AnyRequest

CHECK_SECONDS: Final = 2.0
"""How long one check may take; one that takes longer counts as DOWN."""

_DECISIVE: Final = "database"

_log = structlog.get_logger(__name__)


class ComponentHealth(msgspec.Struct, frozen=True):
    """One component's condition."""

    status: Condition


class Health(msgspec.Struct, frozen=True):
    """Body of ``GET /health``."""

    status: Condition
    node_id: str
    components: dict[str, ComponentHealth]


class ProbeAnswer(msgspec.Struct, frozen=True):
    """Body of ``GET /health/live`` and ``GET /health/ready``."""

    status: Condition
    node_id: str


async def examine(checks: Mapping[str, Check], node_id: str) -> Health:
    """Run all checks at once, each bounded, and judge the node by them.

    Without the database nothing can be accepted: DOWN. Everything else is done without or made
    good later: DEGRADED.
    """
    found = await asyncio.gather(*(_condition(name, check) for name, check in checks.items()))
    components = dict(zip(checks, found, strict=True))
    if components[_DECISIVE] is Condition.DOWN:
        overall = Condition.DOWN
    elif all(condition is Condition.UP for condition in found):
        overall = Condition.UP
    else:
        overall = Condition.DEGRADED
    return Health(
        overall,
        node_id,
        {name: ComponentHealth(condition) for name, condition in components.items()},
    )


async def _condition(name: str, check: Check) -> Condition:
    try:
        return await asyncio.wait_for(check(), CHECK_SECONDS)
    except Exception as error:  # noqa: BLE001
        _log.warning("health check failed", component=name, reason=type(error).__name__)
        return Condition.DOWN


@get("/health", opt=PUBLIC)
async def health(request: AnyRequest) -> Response[bytes]:
    """Say what works; 503 where nothing can be accepted."""
    parts = parts_of(request)
    report = await examine(parts.checks, parts.node_id)
    return _answer(report, is_good=report.status is not Condition.DOWN)


@get("/health/live", opt=PUBLIC)
async def live(request: AnyRequest) -> Response[bytes]:
    """Say that the process answers; whoever restarts it needs to know no more."""
    return _answer(ProbeAnswer(Condition.UP, parts_of(request).node_id), is_good=True)


@get("/health/ready", opt=PUBLIC)
async def ready(request: AnyRequest) -> Response[bytes]:
    """Say whether new requests should be sent here: not while draining or without database."""
    parts = parts_of(request)
    condition = Condition.DOWN
    if not parts.following.draining:
        condition = await _condition(_DECISIVE, parts.checks[_DECISIVE])
    return _answer(ProbeAnswer(condition, parts.node_id), is_good=condition is not Condition.DOWN)


@get("/metrics", opt=PUBLIC)
async def metrics(request: AnyRequest) -> Response[bytes]:
    """Give the metrics in Prometheus's text format."""
    body, content_type = parts_of(request).metrics.exposition()
    return Response(body, headers={"content-type": content_type})


def _answer(body: Health | ProbeAnswer, *, is_good: bool) -> Response[bytes]:
    headers = {} if is_good else {"Retry-After": "2"}
    status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )


ROUTES: Final = [health, live, ready, metrics]
