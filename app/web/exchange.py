"""One request as the log line and the handlers see it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from litestar.types import Scope

_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
_KEY = "throughline.exchange"


class Exchange:
    """What is known of a request beside its ASGI scope; lives as long as the request."""

    __slots__ = ("body", "endings", "headers", "is_head", "names", "request_id")

    def __init__(self, request_id: str, *, is_head: bool) -> None:
        """Take the id that the response will carry as ``X-Request-ID``."""
        self.request_id = request_id
        self.is_head = is_head
        self.names: dict[str, str] = {}
        self.headers: list[tuple[bytes, bytes]] = []
        """Of the response, whoever makes it; set before it begins."""
        self.body: bytes | None = None
        """Of the request, once it was read: a guard may need it before the handler does."""
        self.endings: list[Callable[[], None]] = []
        """Called when the request has ended, however it did."""

    def note(self, **names: str) -> None:
        """Add ids to the request's log line; never content."""
        self.names.update(names)

    def set_cookies(self, lines: Iterable[str]) -> None:
        """Have the response carry these ``Set-Cookie`` values, in place of any set before."""
        kept = [header for header in self.headers if header[0] != b"set-cookie"]
        self.headers = kept + [(b"set-cookie", line.encode("ascii")) for line in lines]


def begin_exchange(scope: Scope) -> Exchange:
    """Make the exchange of a request that has just arrived and attach it to the scope.

    The caller's ``X-Request-ID`` is kept where it is 8 to 128 letters, digits, dots, hyphens or
    underscores; all else gets a fresh one, since the id goes into logs and response headers.
    """
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    kept = _SANE_REQUEST_ID.fullmatch(given)
    exchange = Exchange(
        given.decode("ascii") if kept else uuid.uuid4().hex,
        is_head=scope.get("method") == "HEAD",
    )
    attached: dict[str, Any] = scope.setdefault("state", {})
    attached[_KEY] = exchange
    return exchange


def exchange_of(scope: Scope) -> Exchange:
    """Give the exchange that ``begin_exchange`` attached."""
    exchange = scope["state"][_KEY]
    if not isinstance(exchange, Exchange):  # pragma: no cover
        message = "the request did not pass the edge"
        raise TypeError(message)
    return exchange
