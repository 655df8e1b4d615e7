"""A bare connection to Redis: RESP2 by hiredis on an asyncio protocol, nothing in between.

For the two paths on which every chunk travels, where a client library's bookkeeping costs more
than the work: a worker's flush (``Pipe``) and a node's subscription (``subscriber``).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import hiredis
import structlog

_CONNECT_SECONDS = 3.0

Part = str | bytes | int

logger = structlog.get_logger(__name__)


class Link(asyncio.Protocol):
    """One connection; replies are handed on as they are read, errors among them as values."""

    def __init__(self, received: Callable[[Any], None]) -> None:
        """Hand each reply to ``received``, on the event loop; it must not block."""
        self.lost = asyncio.Event()
        self._received = received
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # Not checked by isinstance: uvloop's transports are not asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._heard = self._loop.time()
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._received(reply)
        except (hiredis.HiredisError, ValueError) as failure:
            # Refused (no permission, loading, not a Redis at all): connect again later.
            logger.warning("redis_link_refused", reason=str(failure))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """See asyncio.Protocol."""
        self.lost.set()

    def silent_for(self) -> float:
        """Give the seconds since anything arrived."""
        return self._loop.time() - self._heard

    def send(self, *commands: Sequence[Part]) -> None:
        """Send commands together; what a lost connection would have taken is dropped."""
        if self._transport is not None and not self._transport.is_closing():
            # The stub says a tuple of one.
            pack = cast("Callable[[tuple[Part, ...]], bytes]", hiredis.pack_command)
            self._transport.write(b"".join([pack(tuple(command)) for command in commands]))

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()


async def connect_link(where: Mapping[str, Any], received: Callable[[Any], None]) -> Link:
    """Connect to what ``redis.asyncio``'s connection arguments name, within bounded time.

    Authentication and database are not sent: see ``greeting``. Raises OSError or TimeoutError.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_CONNECT_SECONDS):
        if where.get("path"):
            _, link = await loop.create_unix_connection(lambda: Link(received), where["path"])
            return link
        _, link = await loop.create_connection(
            lambda: Link(received),
            where.get("host") or "localhost",
            where.get("port") or 6379,
            ssl=_tls(where),
        )
        return link


def greeting(where: Mapping[str, Any]) -> list[Sequence[Part]]:
    """Give the commands that a new connection begins with."""
    commands: list[Sequence[Part]] = []
    if where.get("password") is not None:
        user = [where["username"]] if where.get("username") else []
        commands.append(("AUTH", *user, where["password"]))
    if where.get("db"):
        commands.append(("SELECT", where["db"]))
    return commands


def _tls(where: Mapping[str, Any]) -> ssl.SSLContext | None:
    if "SSL" not in getattr(where.get("connection_class"), "__name__", ""):
        return None
    return ssl.create_default_context(cafile=where.get("ssl_ca_certs"))


class Pipe:
    """Sends many commands in one write and reads their replies, one such exchange at a time."""

    def __init__(self, where: Mapping[str, Any], *, timeout_seconds: float) -> None:
        """Take ``redis.asyncio``'s connection arguments; connects on first use and again."""
        self._where = where
        self._timeout_seconds = timeout_seconds
        self._turn = asyncio.Lock()
        self._link: Link | None = None
        self._awaited = 0
        self._replies: list[Any] = []
        self._done: asyncio.Future[None] | None = None

    async def exchange(self, commands: Sequence[Sequence[Part]]) -> list[Any]:
        """Give the replies in order, a refused command's as a ``hiredis.ReplyError``.

        Raises OSError or TimeoutError; what was sent may then still be carried out.
        """
        async with self._turn:
            link = self._link
            if link is None or link.lost.is_set():
                link = await connect_link(self._where, self._received)
                self._link = link
                for refused in await self._send(link, greeting(self._where)):
                    if isinstance(refused, hiredis.ReplyError):
                        self.close()
                        raise ConnectionRefusedError(str(refused))
            return await self._send(link, commands)

    def close(self) -> None:
        """End the connection."""
        if self._link is not None:
            self._link.abort()
            self._link = None

    async def _send(self, link: Link, commands: Sequence[Sequence[Part]]) -> list[Any]:
        if not commands:
            return []
        self._awaited = len(commands)
        self._replies = []
        done = self._done = asyncio.get_running_loop().create_future()
        link.send(*commands)
        lost = asyncio.ensure_future(link.lost.wait())
        try:
            await asyncio.wait(
                (done, lost),
                timeout=self._timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            lost.cancel()
            self._done = None
            if not done.done():
                # A late reply would be taken for the answer to the next exchange.
                self.close()
        if done.done():
            return self._replies
        if link.lost.is_set():
            raise ConnectionResetError("the connection was lost")
        raise TimeoutError("no reply in time")

    def _received(self, reply: Any) -> None:
        self._replies.append(reply)
        if len(self._replies) == self._awaited and self._done is not None:
            self._done.set_result(None)
