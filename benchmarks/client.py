"""A client that is light enough to measure with: plain sockets, no parsing beyond what is timed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field

_STAMP = re.compile(rb'"chunk":" ?(\d+)"')
_LIMIT = 4 * 1024 * 1024


@dataclass
class Measured:
    """What one reader saw; times in ms."""

    first_chunk_ms: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    chunks: int = 0


async def post(host: str, port: int, path: str, body: object) -> dict[str, object]:
    """Send JSON and give the JSON answer; raise RuntimeError for a status of 400 and more."""
    reader, writer = await asyncio.open_connection(host, port)
    payload = json.dumps(body).encode()
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode()
        + payload
    )
    answer = await reader.read()
    writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    if int(head.split(b" ", 2)[1]) >= 400:
        raise RuntimeError(answer.decode())
    found: dict[str, object] = json.loads(content)
    return found


async def ask_and_read(host: str, port: int, question: str) -> Measured:
    """Ask in a new session and read its stream until the final message."""
    measured = Measured()
    began = time.time()
    asked = await post(host, port, "/api/chat", {"message": question})
    reader, writer = await asyncio.open_connection(host, port, limit=_LIMIT)
    writer.write(
        f"GET /api/sessions/{asked['session_id']}/events HTTP/1.1\r\nHost: {host}\r\n"
        f"Accept: text/event-stream\r\nLast-Event-ID: {asked['position']}\r\n\r\n".encode()
    )
    rest = b""
    while True:
        data = await reader.read(65_536)
        now = time.time()
        if not data:
            raise RuntimeError("the stream ended before the answer did")
        frames = (rest + data).split(b"\n\n")
        rest = frames.pop()
        for frame in frames:
            stamp = _STAMP.search(frame)
            if stamp is not None:
                if measured.chunks == 0:
                    measured.first_chunk_ms = (now - began) * 1000
                measured.chunks += 1
                measured.latencies_ms.append((now - int(stamp[1]) / 1_000_000) * 1000)
            elif b"event: message" in frame and b'"role":"assistant"' in frame:
                writer.close()
                return measured
