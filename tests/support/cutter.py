"""A network between a client and a node that breaks where a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.peers import accepting

_READ_BYTES = 65_536


@dataclass
class Cutter:
    """Passes bytes on; cuts its n-th connection after so many bytes from the node."""

    upstream: str
    cuts: Sequence[int]
    """Bytes after which the first, second, … connection is cut; later ones are left alone."""
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    """The first bytes that each connection brought: its request."""
    from_node: list[int] = field(default_factory=list)
    """Bytes that each connection was given."""
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Cut every connection that is open."""
        for writer in self.open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be the network of one connection."""
        request = await reader.read(_READ_BYTES)
        number = len(self.requests)
        self.requests.append(request)
        self.from_node.append(0)
        left = self.cuts[number] if number < len(self.cuts) else None
        address = urlsplit(self.upstream)
        self.open.add(writer)
        with contextlib.suppress(OSError):
            node_reader, node_writer = await asyncio.open_connection(address.hostname, address.port)
            node_writer.write(request)
            there = asyncio.ensure_future(_pump(reader, node_writer))
            try:
                while data := await node_reader.read(_READ_BYTES):
                    part = data if left is None else data[:left]
                    writer.write(part)
                    await writer.drain()
                    self.from_node[number] += len(part)
                    if left is not None:
                        left -= len(part)
                        if left == 0:
                            break
            finally:
                self.open.discard(writer)
                there.cancel()
                node_writer.close()


@asynccontextmanager
async def cutting(upstream: str, cuts: Sequence[int] = ()) -> AsyncIterator[Cutter]:
    """Stand before the node at ``upstream`` until the end of the block."""
    cutter = Cutter(upstream, cuts)
    async with accepting(cutter.serve) as port:
        cutter.url = f"http://127.0.0.1:{port}"
        yield cutter


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            await writer.drain()
