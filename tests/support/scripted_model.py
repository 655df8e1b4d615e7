"""A model server that does what a test tells it to: for faults that no real one shows on demand.

It speaks just enough of HTTP/1.1 for one request on each connection, and plays the same script on
all of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

CREDENTIALS = "somebody:a-password-in-the-address"


class Reply(NamedTuple):
    """A whole response that is no stream."""

    status: int
    body: object
    headers: tuple[str, ...] = ()


class Hang(NamedTuple):
    """Send nothing more and wait until the client closes the connection."""


class Cut(NamedTuple):
    """Break the connection off, in the middle of the body."""


Step = Reply | Hang | Cut | bytes


class Received(NamedTuple):
    """A request as it came; the names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: Any


def event(data: object) -> bytes:
    """One server-sent event with JSON in it."""
    return f"data: {json.dumps(data)}\n\n".encode()


def text(piece: str) -> bytes:
    """An event with a piece of the answer; lone surrogates are sent as JSON's escapes."""
    return event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})


def finish(reason: str = "stop") -> bytes:
    """The event that says that the answer is whole."""
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


def usage(prompt: int, completion: int) -> bytes:
    """The event with the count of tokens, which comes after the answer."""
    return event(
        {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}
    )


DONE = b"data: [DONE]\n\n"


class ScriptedModel:
    """What happened at the server, for a test to look at."""

    def __init__(self) -> None:
        self.address = ""
        self.received: list[Received] = []
        self.left_by_client = asyncio.Event()

    @property
    def base_url(self) -> str:
        """Where the server is, with credentials in it that nobody must ever see again."""
        return f"http://{CREDENTIALS}@{self.address}/v1"


@asynccontextmanager
async def scripted_model(*steps: Step) -> AsyncIterator[ScriptedModel]:
    """Run the server on a free port of the loopback interface."""
    model = ScriptedModel()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            model.received.append(await _read(reader))
            await _write(steps, model, reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    model.address = f"{host}:{port}"
    async with server:
        yield model


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {}
    for line in head[1:]:
        if line:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers["content-length"]))
    return Received(head[0].split()[1], headers, json.loads(body))


async def _write(
    steps: tuple[Step, ...],
    model: ScriptedModel,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    begun = False
    for step in steps:
        match step:
            case Reply():
                body = json.dumps(step.body).encode()
                lines = [
                    f"HTTP/1.1 {step.status} Scripted",
                    "Content-Type: application/json",
                    f"Content-Length: {len(body)}",
                    *step.headers,
                ]
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
                return
            case Hang():
                if await reader.read() == b"":
                    model.left_by_client.set()
                return
            case Cut():
                await writer.drain()
                return
            case bytes():
                if not begun:
                    begun = True
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n"
                    )
                writer.write(f"{len(step):x}\r\n".encode() + step + b"\r\n")
                await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
