"""The network of the chaos tests breaks as it says it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.network import Network, network_to
from tests.support.peers import accepting
from tests.support.waiting import eventually

_READ_BYTES = 65_536


class _Line:
    """A network, what arrived behind it, and one connection through it."""

    def __init__(
        self,
        network: Network,
        arrived: list[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.network = network
        self.arrived = arrived
        self.reader = reader
        self.writer = writer

    @property
    def far_side(self) -> bytes:
        return b"".join(self.arrived)


@pytest.fixture
async def line() -> AsyncIterator[_Line]:
    arrived: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ_BYTES):
            arrived.append(data)
            writer.write(data.upper())
            await writer.drain()

    async with accepting(echo) as port, network_to(("127.0.0.1", port)) as network:
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"ONE"
        yield _Line(network, arrived, reader, writer)
        writer.close()


async def test_a_cut_is_told_to_both_ends(line: _Line) -> None:
    line.network.connections[0].cut()
    with pytest.raises(ConnectionResetError):
        await line.reader.read(1)
    await eventually(lambda: not line.network.connections, "nothing is left of it")


async def test_what_was_stalled_arrives_although_its_sender_gave_up(line: _Line) -> None:
    """As a request does that is carried out after its caller has stopped waiting."""
    connection = line.network.connections[0]
    connection.stall()
    line.writer.write(b" two")
    await line.writer.drain()
    line.writer.close()
    await line.writer.wait_closed()
    await eventually(lambda: connection.near.closed, "the sender is gone")
    assert line.far_side == b"one"
    connection.go_on()
    await eventually(lambda: line.far_side == b"one two", "the late bytes")
    await eventually(lambda: not line.network.connections, "nothing is left of it")


async def test_what_vanished_is_lost_and_nobody_is_told(line: _Line) -> None:
    connection = line.network.connections[0]
    connection.vanish()
    line.writer.write(b" two")
    await line.writer.drain()
    # Another connection goes all the way there and back meanwhile.
    reader, writer = await asyncio.open_connection("127.0.0.1", line.network.port)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"X"
    writer.close()
    assert line.far_side == b"onex"
    assert not line.reader.at_eof()
    assert not connection.near.closed


async def test_nobody_behind_it_is_a_lost_connection() -> None:
    async with accepting(lambda _reader, _writer: asyncio.sleep(0)) as port:
        pass
    async with network_to(("127.0.0.1", port)) as network:
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
