"""What stands between a browser and a server: it refuses, holds back, cuts and goes silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.ending import end

_PIECE = 64 * 1024
_REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(eq=False)
class _Connection:
    """One of a client's, which carries one request."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes
    speaks: bool = True
    """Whether bytes go through; one that fell silent stays so."""


@dataclass
class Proxy:
    """Passes each connection on as its switches say at that moment."""

    url: str = ""
    refuses_sockets: bool = False
    """A WebSocket is answered 403, as by a proxy that knows no upgrade."""
    holds_sockets: bool = False
    """A WebSocket is neither refused nor answered."""
    holds_events: bool = False
    """An event stream's bytes are held back, as by a proxy that waits for the end."""
    lets_store: bool = False
    """Responses may be kept, which a browser's back/forward cache asks for."""
    seen: list[str] = field(default_factory=list)
    """The path of each request, in order."""
    _target: tuple[str, int] = ("", 0)
    _open: set[_Connection] = field(default_factory=set)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    def strand(self) -> None:
        """Leave what is open half-open: nothing comes through, and nobody is told."""
        for connection in self._open:
            connection.speaks = False

    def cut(self) -> None:
        """Break what is open, as a node that dies does."""
        for connection in self._open:
            connection.writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        try:
            # Ended by its proxy, of which the server that made this task must not be told.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = await reader.readuntil(b"\r\n\r\n")
                await self._pass_on(_Connection(reader, writer, head))
        finally:
            self._serving.discard(serving)
            writer.close()

    async def close(self) -> None:
        """End whatever is open."""
        await end(*self._serving)

    async def _pass_on(self, connection: _Connection) -> None:
        head = connection.head
        path = head.split(b" ", 2)[1].decode()
        self.seen.append(path)
        if b"\r\nupgrade: websocket" in head.lower():
            if self.refuses_sockets:
                connection.writer.write(_REFUSAL)
                await connection.writer.drain()
                return
            connection.speaks = not self.holds_sockets
        else:
            # One request each, so that what comes next is looked at as well.
            head = head.replace(b"\r\nConnection: keep-alive", b"\r\nConnection: close")
        holds = self.holds_events and "/stream?" in path
        reader, writer = await asyncio.open_connection(*self._target)
        writer.write(head)
        up = asyncio.ensure_future(_relay(connection, connection.reader, writer))
        if self.lets_store and not holds:
            answer = await reader.readuntil(b"\r\n\r\n")
            connection.writer.write(
                answer.replace(b"cache-control: no-store", b"cache-control: no-cache")
            )
        down = asyncio.ensure_future(
            _relay(connection, reader, None if holds else connection.writer)
        )
        self._open.add(connection)
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(connection)
            await end(up, down)
            writer.close()


async def _relay(
    connection: _Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter | None
) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(_PIECE):
            if sink is not None and connection.speaks:
                sink.write(piece)
                await sink.drain()
    if not connection.speaks:
        # Half-open: the end is not passed on either.
        await asyncio.Event().wait()


@asynccontextmanager
async def proxying(url: str) -> AsyncIterator[Proxy]:
    """Stand before the server at ``url`` until the end of the block."""
    host, _, port = url.rpartition("//")[2].partition(":")
    proxy = Proxy(_target=(host, int(port)))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
