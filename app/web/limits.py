"""How much one user and one address may ask of the web nodes.

A route says by its ``opt`` what it is counted as; what says nothing is a request of its user.
Counting needs one round trip to Redis at most. Where Redis does not answer, the request goes on
uncounted: what it must not do without Redis, it cannot do anyway.
"""

from __future__ import annotations

import enum
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler

from app.domain.caller import Caller
from app.domain.errors import RateLimited, TooManyConnections, Unauthenticated, Unavailable
from app.domain.rates import Charge, Rate, Verdict
from app.streams.limits import Limiter, MemoryLimiter, SignInLimits
from app.web.auth import PUBLIC, caller_of
from app.web.exchange import Exchange, exchange_of
from app.web.problems import AnyRequest, ClientGone
from app.web.proxies import address_of, limited_address

if TYPE_CHECKING:
    from app.telemetry import Metrics

_MINUTE: Final = 60
_DAY: Final = 86_400
_OPTION: Final = "limit"
_AMBIENT: Final = "development"
"""The credential of who has none, in development."""

_Connection = ASGIConnection[Any, Any, Any, Any]
_Guard = Callable[[_Connection, BaseRouteHandler], Awaitable[None] | None]
Admit = Callable[[str], Awaitable[None]]
"""Counts a question, given its text ("" where there is none); raises RateLimited."""


class _Kind(enum.Enum):
    QUESTION = enum.auto()
    STREAM = enum.auto()
    ADDRESS = enum.auto()


ASKS: Final = {_OPTION: _Kind.QUESTION}
"""``opt`` of a route whose handler counts the question itself (``Limits.question``)."""

STREAMS: Final = {_OPTION: _Kind.STREAM}
"""``opt`` of a route that holds its connection: a stream, or a poll."""

PUBLIC_LIMITED: Final = {**PUBLIC, _OPTION: _Kind.ADDRESS}
"""``opt`` of a route that needs no identity and is limited by address: the sign-in pages."""

_SENTENCES: Final = {
    "requests": "Too many requests",
    "questions": "Too many questions",
    "characters": "Too much was asked in a day",
    "streams": "Too many streams were opened",
    "address": "Too many requests from this address",
    "frames": "Too many frames",
}


class LimitRates(NamedTuple):
    """How much there may be; 0 for no limit."""

    requests: int
    """Of a user, in a minute."""
    questions: int
    """Of a user, in a minute."""
    characters: int
    """Of a user's questions, in a day."""
    streams: int
    """Streams and polls that a user opens, in a minute."""
    address: int
    """Requests of an address without a valid credential, in a minute."""
    frames: int
    """From the client of one WebSocket, in a minute."""
    connections: int
    """Streams, polls and WebSockets of an address at once, on this node."""


class Limits:
    """The limits of one web node.

    Who has no credential, in development, has no limits but those of an address and of a WebSocket:
    that is everybody at this machine.
    """

    def __init__(
        self,
        limiter: Limiter,
        rates: LimitRates,
        *,
        sign_in: SignInLimits,
        metrics: Metrics,
    ) -> None:
        """Take what counts, how much there may be, and where refusals are counted."""
        self.sign_in = sign_in
        self._limiter = limiter
        self._requests = _charge("requests", rates.requests, _MINUTE)
        self._questions = _charge("questions", rates.questions, _MINUTE)
        self._characters = _charge("characters", rates.characters, _DAY)
        self._streams = _charge("streams", rates.streams, _MINUTE)
        self._address = _charge("address", rates.address, _MINUTE)
        self._frames = _charge("frames", rates.frames, _MINUTE)
        self._connections = rates.connections
        self._held: Counter[str] = Counter()
        self._metrics = metrics

    def guard(self, gatekeeper: _Guard) -> _Guard:
        """Give the guard that asks the gatekeeper first and then counts."""

        async def admit(connection: _Connection, handler: BaseRouteHandler) -> None:
            try:
                admitted = gatekeeper(connection, handler)
                if inspect.isawaitable(admitted):
                    await admitted
            except Unauthenticated:
                await self._count_stranger(connection)
                raise
            if connection.scope["type"] == ScopeType.HTTP:
                await self._admit(connection, handler)

        return admit

    async def _admit(self, connection: _Connection, handler: BaseRouteHandler) -> None:
        kind = handler.opt.get(_OPTION)
        if handler.opt.get("public"):
            if kind is _Kind.ADDRESS:
                await self._count_stranger(connection)
            return
        caller, exchange = caller_of(connection), exchange_of(connection.scope)
        match kind:
            case _Kind.QUESTION:
                # By the handler, which knows what is asked and can show it again.
                return
            case _Kind.STREAM:
                slot = ExitStack()
                slot.enter_context(self.connection(address_of(connection.scope)))
                exchange.endings.append(slot.close)
                await self._count(caller, exchange, self._streams)
            case _:
                await self._count(caller, exchange, self._requests)

    @asynccontextmanager
    async def question(self, request: AnyRequest) -> AsyncIterator[Admit]:
        """Give what counts the question of this request, to be called as soon as it is read.

        A block that fails before that is counted as a request.
        """
        caller, exchange = caller_of(request), exchange_of(request.scope)
        is_counted = False

        async def admit(text: str) -> None:
            nonlocal is_counted
            is_counted = True
            await self._count(caller, exchange, *self._question(text))

        try:
            yield admit
        except ClientGone:
            raise
        except Exception:
            if not is_counted:
                await self._count(caller, exchange, self._requests)
            raise

    async def frame_question(self, caller: Caller, text: str) -> None:
        """Count a question of a WebSocket; raises RateLimited."""
        await self._count(caller, None, *self._question(text))

    async def frame_request(self, caller: Caller) -> None:
        """Count what else a WebSocket's frame asks for; raises RateLimited."""
        await self._count(caller, None, self._requests)

    async def socket_stream(self, caller: Caller) -> None:
        """Count a stream that is opened over a WebSocket; raises RateLimited."""
        await self._count(caller, None, self._streams)

    def frames(self) -> Callable[[], None]:
        """Give what counts the frames of one client, and raises RateLimited for a flood."""
        charge, counter = self._frames, MemoryLimiter()

        def count() -> None:
            if charge is not None:
                verdict = counter.count("", (charge,))
                if not verdict.allowed:
                    raise self._refusal(verdict)

        return count

    @contextmanager
    def connection(self, address: str) -> Iterator[None]:
        """Hold one of the connections that an address may have here; raises TooManyConnections."""
        counted = limited_address(address)
        if self._connections and self._held[counted] >= self._connections:
            self._metrics.limits_refused.labels(bucket="connections").inc()
            raise TooManyConnections("Too many open streams from this address")
        self._held[counted] += 1
        try:
            yield
        finally:
            self._held[counted] -= 1
            if not self._held[counted]:
                del self._held[counted]

    def _question(self, text: str) -> tuple[Charge | None, ...]:
        characters = self._characters._replace(cost=len(text)) if self._characters else None
        return self._requests, self._questions, characters if text else None

    async def _count_stranger(self, connection: _Connection) -> None:
        if connection.scope["type"] == ScopeType.HTTP and self._address is not None:
            subject = f"address:{limited_address(address_of(connection.scope))}"
            await self._take(subject, exchange_of(connection.scope), self._address)

    async def _count(
        self, caller: Caller, exchange: Exchange | None, *charges: Charge | None
    ) -> None:
        if caller.credential != _AMBIENT:
            await self._take(f"user:{caller.user_id}", exchange, *charges)

    async def _take(self, subject: str, exchange: Exchange | None, *charges: Charge | None) -> None:
        wanted = [charge for charge in charges if charge is not None]
        if not wanted:
            return
        try:
            verdict = await self._limiter.take(subject, wanted)
        except Unavailable:
            self._metrics.limits_uncounted.labels(what="requests").inc()
            return
        if exchange is not None:
            exchange.headers.extend(_headers(verdict))
        if not verdict.allowed:
            raise self._refusal(verdict)

    def _refusal(self, verdict: Verdict) -> RateLimited:
        self._metrics.limits_refused.labels(bucket=verdict.bucket).inc()
        return RateLimited(verdict.retry_after_seconds, _SENTENCES[verdict.bucket])


def _charge(bucket: str, limit: int, period_seconds: int) -> Charge | None:
    return Charge(bucket, Rate(limit, period_seconds)) if limit else None


def _headers(verdict: Verdict) -> Iterator[tuple[bytes, bytes]]:
    for name, value in (
        (b"ratelimit-limit", verdict.limit),
        (b"ratelimit-remaining", verdict.remaining),
        (b"ratelimit-reset", verdict.reset_seconds),
    ):
        yield name, str(value).encode("ascii")
