"""A model server that does what a test tells it to: for faults that no real one shows on demand.

It speaks just enough of HTTP/1.1 for one request on each connection, and plays the same script on
all of them, unless the first ones are to see something else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

_OF_LLAMA = "/apply-template"
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


class Pause(NamedTuple):
    """Be silent for so long, so that what came before goes on its own."""

    seconds: float


class Until(NamedTuple):
    """Be silent until the test says so."""

    told: asyncio.Event


Step = Reply | Hang | Cut | Pause | Until | bytes


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


def thought(piece: str, *, name: str = "reasoning_content") -> bytes:
    """An event with a piece of reasoning, under either of the names that servers use."""
    return event({"choices": [{"index": 0, "delta": {name: piece}, "finish_reason": None}]})


def refusal(piece: str) -> bytes:
    """An event with a piece of the words in which the model declines."""
    return event({"choices": [{"index": 0, "delta": {"refusal": piece}, "finish_reason": None}]})


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
async def scripted_model(
    *steps: Step,
    first: Sequence[Sequence[Step]] = (),
    by_path: Mapping[str, Sequence[Step]] | None = None,
) -> AsyncIterator[ScriptedModel]:
    """Run the server on a free port of the loopback interface.

    The first connections play ``first``, one each, and all later ones ``steps``; a path that
    ``by_path`` names has a script of its own. Without ``by_path`` it has no
    address of llama.cpp's, as most servers, and what is asked there counts as nothing received.
    """
    scripts = iter(first)
    model = ScriptedModel()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            received = await _read(reader)
            script = (by_path or {}).get(received.path)
            if by_path is None and received.path.endswith(_OF_LLAMA):
                # A worker asks for it at times of its own: no test is to depend on when.
                await _write([Reply(404, {})], model, reader, writer)
                return
            model.received.append(received)
            if script is None:
                script = next(scripts, steps)
            await _write(script, model, reader, writer)
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
    steps: Sequence[Step],
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
            case Pause():
                await asyncio.sleep(step.seconds)
            case Until():
                await step.told.wait()
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
