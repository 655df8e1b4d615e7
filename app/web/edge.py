"""The outermost layer: what is true of every response, whatever made it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Final, cast

import structlog
from litestar.enums import ScopeType
from litestar.types import (
    ASGIApp,
    HTTPResponseStartEvent,
    HTTPScope,
    Message,
    Receive,
    Scope,
    Send,
)

from app.domain.errors import Unavailable
from app.telemetry import Metrics
from app.web.compression import MIN_BYTES, compress_page, may_compress_page
from app.web.exchange import Exchange, begin_exchange
from app.web.problems import problem_document, problem_of
from app.web.proxies import Networks, address_of, apply

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "object-src 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS: Final = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # Not no-referrer: with it browsers send «Origin: null» from our own forms.
    (b"referrer-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")
"""A year over https only (RFC 6797), for this host alone: others under its name are not ours."""

Methods = Mapping[str, frozenset[str]]
"""The methods of each route, by its template."""

_KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBES: Final = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})

_log = structlog.get_logger(__name__)


class Edge:
    """Gives each request an id, one log line and its metrics, each response its headers.

    What is within sees the client's address and scheme, where a proxy that is trusted says them.

    A page that is sent whole is compressed. Its start waits for its body, so that the two agree;
    no other response's does.

    A HEAD request is handed on as GET, so that the two cannot differ; the server below, which
    knows what it was, sends no body.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        *,
        methods: Methods,
        trusted_proxies: Networks = (),
        strict_transport: bool = False,
    ) -> None:
        """Wrap the application; ``methods`` are those that each route takes.

        Litestar's answer to OPTIONS names only the method of a path that was registered first.
        ``strict_transport`` tells browsers to come by https only.
        """
        self._app = app
        self._metrics = metrics
        self._methods = methods
        self._trusted_proxies = trusted_proxies
        self._headers = (
            (*_SECURITY_HEADERS, _STRICT_TRANSPORT) if strict_transport else (_SECURITY_HEADERS)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == ScopeType.HTTP or scope["type"] == ScopeType.WEBSOCKET:
            apply(scope, self._trusted_proxies)
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        exchange = begin_exchange(scope)
        if exchange.is_head:
            # A copy: the server below looks at its own scope to know that no body may follow.
            scope = cast("HTTPScope", {**scope, "method": "GET"})
        response = _Response(send, exchange, scope, self._methods, self._headers)
        began = time.perf_counter()
        try:
            with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
                await self._app(scope, receive, response.send)
        except asyncio.CancelledError:
            if response.status is not None:
                raise
            # The node stops and has waited for as long as it may. Without an answer of ours the
            # server below would send a bare 500.
            await _refuse_as_stopping(scope, exchange, response.send)
        finally:
            for ended in exchange.endings:
                ended()
            self._account(scope, method, exchange, response, time.perf_counter() - began)

    def _account(
        self,
        scope: HTTPScope,
        method: str,
        exchange: Exchange,
        response: _Response,
        seconds: float,
    ) -> None:
        route = str(scope.get("path_template") or "unmatched")
        # Names and methods are the client's: an unknown one must not become a time series.
        known_method = method if method in _KNOWN_METHODS else "other"
        status = response.status or 499
        self._metrics.http_requests.labels(
            method=known_method, route=route, status=str(status)
        ).inc()
        if not response.is_stream:
            self._metrics.http_request_seconds.labels(method=known_method, route=route).observe(
                seconds
            )
        ids = {
            name: value
            for name, value in scope.get("path_params", {}).items()
            if name in {"session_id", "message_id"} and isinstance(value, str)
        }
        write = _log.debug if route in _PROBES else _log.info
        write(
            "request",
            method=known_method,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
            request_id=exchange.request_id,
            client=address_of(scope),
            **{name: value[:64] for name, value in (ids | exchange.names).items()},
        )


async def _refuse_as_stopping(scope: HTTPScope, exchange: Exchange, send: Send) -> None:
    error = Unavailable("This node is stopping; ask again")
    body = problem_document(
        problem_of(error), instance=scope["path"], request_id=exchange.request_id
    )
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(error.retry_after_seconds).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class _Response:
    """Watches one response on its way out."""

    __slots__ = (
        "_always",
        "_exchange",
        "_held",
        "_methods",
        "_scope",
        "_send",
        "is_stream",
        "status",
    )

    def __init__(
        self,
        send: Send,
        exchange: Exchange,
        scope: HTTPScope,
        methods: Methods,
        always: Iterable[tuple[bytes, bytes]],
    ) -> None:
        self._send = send
        self._always = always
        self._exchange = exchange
        self._scope = scope
        self._methods = methods
        self._held: HTTPResponseStartEvent | None = None
        self.status: int | None = None
        self.is_stream = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._headers(list(message.get("headers", ())))
            if _is_page(message) and may_compress_page(self._scope):
                self._held = message
                return
        elif message["type"] == "http.response.body" and self._held is not None:
            start, self._held = self._held, None
            if not message.get("more_body", False) and len(message["body"]) >= MIN_BYTES:
                message["body"] = await compress_page(message["body"])
                start["headers"] = _as_compressed(start["headers"], len(message["body"]))
            await self._send(start)
        await self._send(message)

    def _headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        has_cache_control = False
        is_page = False
        for index, (name, value) in enumerate(headers):
            if name == b"content-type":
                self.is_stream = value.startswith(b"text/event-stream")
                is_page = value.startswith(b"text/html")
            elif name == b"cache-control":
                has_cache_control = True
            elif name == b"allow":
                headers[index] = (name, self._allowed(value))
        headers.extend(self._always)
        headers.extend(self._exchange.headers)
        if is_page:
            headers.append((b"vary", b"Accept-Encoding, Sec-Fetch-Site"))
        if not has_cache_control:
            headers.append((b"cache-control", b"no-store"))
        headers.append((b"x-request-id", self._exchange.request_id.encode("ascii")))
        return headers

    def _allowed(self, found: bytes) -> bytes:
        """Name HEAD wherever GET is allowed: the edge answers it for every route."""
        template = str(self._scope.get("path_template"))
        methods = set(self._methods.get(template, found.decode("ascii").split(", ")))
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods)).encode("ascii")


def _is_page(start: HTTPResponseStartEvent) -> bool:
    names = dict(start["headers"])
    media_type = names.get(b"content-type", b"")
    return media_type.startswith(b"text/html") and b"content-encoding" not in names


def _as_compressed(
    headers: Iterable[tuple[bytes, bytes]], length: int
) -> list[tuple[bytes, bytes]]:
    return [
        *((name, value) for name, value in headers if name != b"content-length"),
        (b"content-length", str(length).encode("ascii")),
        (b"content-encoding", b"gzip"),
    ]
