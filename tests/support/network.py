"""A network between two of our parts that a test can cut, hold up or let die without a word.

Each connection that it takes is one to its upstream, a TCP port or a unix socket. Bytes are passed
on as they come, on the event loop that made it, until a test says otherwise::

    cut        both ends are told at once (a reset)
    stalled    nothing is lost, but nothing moves until it is let go: then all of it arrives, also
               what an end sent before it gave up and closed (a request that is carried out late)
    vanished   half-open: what is sent is lost, and neither end is told, ever
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

_BUFFER_BYTES = 1 << 20
_RESET = struct.pack("ii", 1, 0)


class _State(enum.Enum):
    OPEN = enum.auto()
    STALLED = enum.auto()
    VANISHED = enum.auto()


class _End(asyncio.Protocol):
    """One of a connection's two sockets."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.peer: _End | None = None
        self._late: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        match self.connection.state:
            case _State.OPEN:
                self.pass_on(data)
            case _State.STALLED:
                self._late.append(data)
            case _State.VANISHED:
                pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.connection.end_closed(self)

    def pause_writing(self) -> None:
        """Slow the other end down while this one takes nothing."""
        if self.peer is not None and self.peer.transport is not None:
            with contextlib.suppress(RuntimeError):
                self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.closed:
            with contextlib.suppress(RuntimeError):
                self.peer.transport.resume_reading()

    def pass_on(self, data: bytes) -> None:
        peer = self.peer
        if peer is None or peer.transport is None:
            self._late.append(data)
        elif not peer.closed:
            peer.transport.write(data)

    def let_go(self) -> None:
        """Pass on what was held up."""
        late, self._late = self._late, []
        for data in late:
            self.pass_on(data)

    def close(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def reset(self) -> None:
        if self.transport is None:
            return
        found = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            # Linger for no time: the other side gets a reset and not an orderly end.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


class Connection:
    """A connection through the network."""

    def __init__(self, network: Network) -> None:
        self.state = _State.OPEN
        self.near = _End(self)
        self.far = _End(self)
        self._network = network

    def joined(self) -> None:
        """Begin to pass bytes on: both ends are connected."""
        self.near.peer, self.far.peer = self.far, self.near
        if self.state is _State.OPEN:
            self.near.let_go()
        if self.near.closed:
            self.end_closed(self.near)

    def end_closed(self, end: _End) -> None:
        """Close the other end, unless it must not hear of it now."""
        if self.state is _State.OPEN and end.peer is not None:
            end.peer.close()
        if self.near.closed and (self.far.closed or self.far.transport is None):
            self._network.forget(self)

    def cut(self) -> None:
        """Tell both ends that the connection is no more."""
        self.near.reset()
        self.far.reset()

    def stall(self) -> None:
        """Hold everything up that is sent from now on."""
        if self.state is _State.OPEN:
            self.state = _State.STALLED

    def go_on(self) -> None:
        """Let everything arrive that was held up, though its sender be gone."""
        if self.state is not _State.STALLED:
            return
        self.state = _State.OPEN
        for end in (self.near, self.far):
            end.let_go()
        for end in (self.near, self.far):
            if end.closed:
                self.end_closed(end)

    def vanish(self) -> None:
        """Lose everything that is sent from now on, and tell nobody."""
        self.state = _State.VANISHED


class Network:
    """Listens on a port of the loopback interface."""

    def __init__(self, upstream: tuple[str, int] | Path) -> None:
        """Lead each connection to ``upstream``."""
        self.port = 0
        self._upstream = upstream
        self._connections: dict[Connection, None] = {}
        self._joining: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> list[Connection]:
        """The connections that are open, in the order in which they were opened."""
        return list(self._connections)

    def forget(self, connection: Connection) -> None:
        """Drop a connection of which nothing is left."""
        self._connections.pop(connection, None)

    def accept(self) -> asyncio.Protocol:
        """Take one connection (the server's protocol factory)."""
        connection = Connection(self)
        self._connections[connection] = None
        joining = asyncio.get_running_loop().create_task(self._join(connection))
        self._joining.add(joining)
        joining.add_done_callback(self._joining.discard)
        return connection.near

    def close(self) -> None:
        """End every connection."""
        for joining in self._joining:
            joining.cancel()
        for connection in self.connections:
            connection.cut()

    async def _join(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            if isinstance(self._upstream, Path):
                await loop.create_unix_connection(lambda: connection.far, str(self._upstream))
            else:
                await loop.create_connection(lambda: connection.far, *self._upstream)
        except OSError:
            # Nobody listens there: whoever connected is to see a lost connection, soon.
            connection.near.reset()
            self.forget(connection)
            return
        connection.joined()


@asynccontextmanager
async def network_to(upstream: tuple[str, int] | Path) -> AsyncIterator[Network]:
    """Stand before ``upstream`` until the end of the block."""
    network = Network(upstream)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(network.accept, "127.0.0.1", 0)
    network.port = server.sockets[0].getsockname()[1]
    try:
        yield network
    finally:
        server.close()
        network.close()
