"""Records a conversation over each transport with a real server, into docs/protocol.md.

Run it from the repository: ``.venv/bin/python -m scripts.record_conversations``. A test has the
same conversations with a node of its own and compares them with what is written there.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from scripts.own_server import running_server

PROTOCOL: Final = Path(__file__).parent.parent / "docs" / "protocol.md"
_QUESTION: Final = "/count 3 20"
_FINAL: Final = '"content":"1 2 3","status":"complete"'
_SECONDS: Final = 20.0
_SHOWN_HEADERS: Final = ("content-type", "cache-control", "x-accel-buffering")

# What differs from one recording to the next, and what stands for it.
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_POSITION = re.compile(r"\b([0-9]{13,16})-([0-9]{1,6})\b")
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_NODE = re.compile(r'("node_id":)"[^"]*"')
_RETRY = re.compile(r"^retry: \d+$", re.MULTILINE)


def main() -> None:
    """Have the conversations, and write them down."""
    with running_server() as address:
        recorded = asyncio.run(record(address))
    text = PROTOCOL.read_text("utf-8")
    for name, conversation in recorded.items():
        before, written, after = parts_of(text, name)
        text = f"{before}{conversation}{after}"
        print(f"{name}: {'as it was' if conversation == written else 'rewritten'}")
    PROTOCOL.write_text(text, "utf-8")


async def record(address: str) -> dict[str, str]:
    """Give what was said over each transport, with ids, times and epochs that stand for any."""
    conversations: Mapping[str, Callable[[str], Awaitable[list[str]]]] = {
        "sse": _server_sent_events,
        "poll": _long_poll,
        "websocket": _websocket,
    }
    return {name: _normalised(await have(address)) for name, have in conversations.items()}


def parts_of(text: str, name: str) -> tuple[str, str, str]:
    """Give what stands before, between and after the markers of a conversation."""
    begin, end = f"<!-- recorded:{name}:begin -->\n", f"<!-- recorded:{name}:end -->"
    before, found, rest = text.partition(begin)
    written, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise SystemExit(f"{PROTOCOL.name} lacks the markers of the conversation «{name}»")
    return before + begin, written, end + after


# ---- Server-sent events.


async def _server_sent_events(address: str) -> list[str]:
    path = "/api/sessions/by-sse/events"
    lines: list[str] = []
    async with httpx.AsyncClient(base_url=address, timeout=_SECONDS) as http:
        await _make_session(http, "by-sse")
        async with http.stream("GET", path, headers={"Accept": "text/event-stream"}) as stream:
            lines += [f"> GET {path}", "> Accept: text/event-stream", *_head(stream), ""]
            events = _events(stream)
            lines += await _events_until(events, "history")
            lines += await _asked_beside(http, "by-sse")
            answered = await _events_until(events, _FINAL)
        lines += answered
        # As if it had been cut off after the second of the three chunks.
        position = next(one for one in answered if '"index":1' in one).partition("\n")[0][4:]
        resume = {"Accept": "text/event-stream", "Last-Event-ID": position}
        async with http.stream("GET", path, headers=resume) as stream:
            lines += [f"> GET {path}", *(f"> {name}: {said}" for name, said in resume.items())]
            lines += [*_head(stream), ""]
            events = _events(stream)
            lines += await _events_until(events, _FINAL)
            await http.delete("/api/sessions/by-sse")
            lines += ["> DELETE /api/sessions/by-sse", ""]
            lines += await _events_until(events, "event: bye")
        gone = await http.get(path, headers=resume)
        lines += [f"> GET {path}", *_head(gone)]
    return lines


async def _events(stream: httpx.Response) -> AsyncIterator[str]:
    rest = ""
    async for text in stream.aiter_text():
        *whole, rest = (rest + text).split("\n\n")
        for event in whole:
            yield event


async def _events_until(events: AsyncIterator[str], wanted: str) -> list[str]:
    seen: list[str] = []
    async with asyncio.timeout(_SECONDS):
        async for event in events:
            # A comment may come at any time, and stands for nothing.
            if not event.startswith(":"):
                seen += [event, ""]
            if wanted in event:
                return seen
    raise SystemExit(f"the stream ended before {wanted}")


# ---- Long poll.


async def _long_poll(address: str) -> list[str]:
    path = "/api/sessions/by-poll/events?transport=poll"
    lines: list[str] = []
    async with httpx.AsyncClient(base_url=address, timeout=_SECONDS + 10) as http:
        await _make_session(http, "by-poll")
        first = await http.get(path)
        lines += [f"> GET {path}", *_head(first), first.text, ""]
        lines += await _asked_beside(http, "by-poll")
        await _until_answered(http, path)
        # Asked from where it stood before: with the answer complete, all of it comes at once.
        path += f"&wait=30&last_event_id={first.json()['position']}"
        second = await http.get(path)
        lines += [f"> GET {path}", *_head(second), second.text]
    return lines


async def _until_answered(http: httpx.AsyncClient, path: str) -> None:
    position = "0-0"
    while True:
        polled = (await http.get(f"{path}&wait=10&last_event_id={position}")).json()
        position = polled["position"]
        messages = [one["data"] for one in polled["events"] if one["type"] == "message"]
        messages += (polled["history"] or {"messages": []})["messages"]
        if any(one["role"] == "assistant" and one["is_complete"] for one in messages):
            return


# ---- WebSocket.


async def _websocket(address: str) -> list[str]:
    url = address.replace("http", "ws", 1)
    path = "/ws/chat?session_id=by-websocket"
    lines: list[str] = []
    async with httpx.AsyncClient(base_url=address, timeout=_SECONDS) as http:
        await _make_session(http, "by-websocket")
        async with connect(f"{url}{path}") as socket:
            lines += [f"> GET {path}", "> Upgrade: websocket", ""]
            lines += await _frames_until(socket, '"history"')
            asking = {"type": "chat", "message": _QUESTION, "client_message_id": "question-1"}
            lines += await _sent(socket, asking)
            answered = await _frames_until(socket, '"type":"ack"', _FINAL)
            # The two may cross: what was acknowledged comes from the log as well.
            lines += sorted(answered, key=lambda one: '"type":"ack"' not in one)
            lines += await _sent(socket, {"type": "ping"})
            lines += await _frames_until(socket, '"pong"')
            lines += await _sent(socket, {"type": "chat", "message": " "})
            lines += await _frames_until(socket, '"error"')
        path += f"&last_event_id={_second_chunk(answered)}"
        async with connect(f"{url}{path}") as socket:
            lines += ["", f"> GET {path}", "> Upgrade: websocket", ""]
            lines += await _frames_until(socket, _FINAL)
            await http.delete("/api/sessions/by-websocket")
            lines += ["", "> DELETE /api/sessions/by-websocket", ""]
            lines += await _frames_until_closed(socket)
    return lines


async def _sent(socket: ClientConnection, frame: dict[str, str]) -> list[str]:
    text = json.dumps(frame)
    await socket.send(text)
    return [f"> {text}"]


async def _frames_until(socket: ClientConnection, *wanted: str) -> list[str]:
    """Give the frames up to the one with which all of ``wanted`` were seen."""
    seen: list[str] = []
    async with asyncio.timeout(_SECONDS):
        async for text in socket:
            seen.append(f"< {text!s}")
            if all(any(one in frame for frame in seen) for one in wanted):
                return seen
    raise SystemExit(f"the connection ended before {' and '.join(wanted)}")


async def _frames_until_closed(socket: ClientConnection) -> list[str]:
    seen: list[str] = []
    async with asyncio.timeout(_SECONDS):
        try:
            while True:
                seen.append(f"< {await socket.recv()!s}")
        except ConnectionClosed:
            return [*seen, f"< closed: {socket.close_code} {socket.close_reason}"]


def _second_chunk(frames: list[str]) -> str:
    chunk = next(one for one in frames if '"index":1' in one)
    position: str = json.loads(chunk[2:])["id"]
    return position


# ---- What they share.


async def _make_session(http: httpx.AsyncClient, session_id: str) -> None:
    made = await http.post("/api/sessions", json={"session_id": session_id})
    made.raise_for_status()


async def _asked_beside(http: httpx.AsyncClient, session_id: str) -> list[str]:
    """Ask over another connection; the stream tells of it, whoever asked."""
    body = {"session_id": session_id, "message": _QUESTION}
    answer = await http.post("/api/chat", json=body)
    return ["> POST /api/chat", f"> {json.dumps(body)}", *_head(answer), answer.text, ""]


def _head(response: httpx.Response) -> list[str]:
    return [
        f"< {response.status_code} {response.reason_phrase}",
        *(
            f"< {name}: {response.headers[name]}"
            for name in _SHOWN_HEADERS
            if name in response.headers
        ),
    ]


def _normalised(lines: list[str]) -> str:
    text = "\n".join(lines).rstrip("\n")
    ids: dict[str, str] = {}
    epochs: dict[str, str] = {}

    def any_id(found: re.Match[str]) -> str:
        return ids.setdefault(found[0], f"019a2b3c-0000-7000-8000-{len(ids) + 1:012}")

    def any_position(found: re.Match[str]) -> str:
        epoch = epochs.setdefault(found[1], str(1_790_000_000_000 + 60_000 * len(epochs)))
        return f"{epoch}-{found[2]}"

    text = _POSITION.sub(any_position, text)
    text = _UUID.sub(any_id, text)
    text = _TIME.sub("2026-01-31T09:05:00.123Z", text)
    text = _NODE.sub(r'\1"web-1"', text)
    text = _RETRY.sub("retry: 2000", text)
    return f"```\n{text}\n```\n"


if __name__ == "__main__":
    main()
