"""A client that asks, reads over any transport, comes and goes, and checks everything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from typing import Any

import httpx
from redis.exceptions import RedisError
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from app.streams import keys
from tests.chaos.checker import Checker
from tests.chaos.report import Breach, Fault, Report
from tests.chaos.stage import Stage
from tests.support.contract_client import SseParser
from tests.support.nodes import Node

_STUCK_SECONDS = 90.0
_RETRY_SECONDS = 0.2
_TRANSPORTS = ("sse", "poll", "websocket")
_Event = tuple[str | None, str, Any]


class Talker:
    """One session with one reader that keeps to the contract's rule."""

    def __init__(self, stage: Stage, number: int, seed: int, report: Report) -> None:
        """Take the stage; what it does follows from the seed and its number."""
        self._stage = stage
        self._session_id = f"s-{number}"
        self._chance = random.Random(seed * 100_003 + number)
        self._report = report
        self._checker = Checker(self._breach)
        self._node: Node | None = None
        """The web node that this was connected to last."""
        self._broken_by: Fault | None = None
        """What ended the connection before, where that was a web node's end."""
        self._awaited: tuple[int, int] | None = None
        """The position at which this has caught up after that."""
        self._goes_on = False
        """Whether another attempt has begun since the answer lost its worker."""
        self._last_chunk = 0.0
        """When this was given a chunk last."""

    async def talk(self, until: float) -> None:
        """Ask one question after the other until that moment (``time.monotonic``)."""
        turn = 0
        while time.monotonic() < until:
            turn += 1
            count = self._chance.randint(30, 200)
            question = f"/count {count} {self._chance.randint(5, 30)}"
            asked = await self._ask(question, f"key-{turn}")
            answer_id = asked["assistant_message"]["message_id"]
            self._checker.expect(answer_id, " ".join(str(one) for one in range(1, count + 1)))
            accepted = time.monotonic()
            stopped = await self._read_to_the_end(answer_id)
            final = self._checker.ended(answer_id, stopped=stopped)
            if final is None:
                return
            self._report.answer_seconds.append(time.monotonic() - accepted)
            self._report.answers[final["status"]] += 1
            self._report.attempts[final["attempt"]] += 1
            self._report.finals[answer_id] = (final["status"], final["content"])

    async def _ask(self, question: str, key: str) -> dict[str, Any]:
        body = {"message": question, "session_id": self._session_id, "client_message_id": key}
        while True:
            with contextlib.suppress(httpx.TransportError):
                async with self._http() as http:
                    answer = await http.post("/api/chat", json=body)
                if answer.status_code in {200, 202}:
                    asked: dict[str, Any] = answer.json()
                    return asked
                self._refused(answer)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _read_to_the_end(self, answer_id: str) -> bool:
        began = time.monotonic()
        wants_stop = self._chance.random() < 0.15
        stopped = False
        while not self._checker.client.is_complete(answer_id):
            # What goes wrong for long, on a busy machine above all, holds up for as long.
            if time.monotonic() - max(began, self._report.disturbed_until()) > _STUCK_SECONDS:
                return stopped
            transport = self._chance.choice(_TRANSPORTS)
            try:
                async with asyncio.timeout(self._chance.uniform(0.3, 4.0)):
                    await self._read(transport, answer_id)
                self._broken_by = self._end_of_node()
            except TimeoutError:
                self._broken_by = None
            except (httpx.TransportError, WebSocketException, OSError):
                self._broken_by = self._end_of_node()
                await asyncio.sleep(_RETRY_SECONDS)
            if wants_stop and not stopped and self._has_text(answer_id):
                stopped = await self._stop(answer_id)
        return stopped

    async def _stop(self, answer_id: str) -> bool:
        with contextlib.suppress(httpx.TransportError):
            async with self._http() as http:
                answer = await http.post(f"/api/chat/{answer_id}/cancel")
            return answer.status_code == 202
        return False

    # ---- Reading.

    async def _read(self, transport: str, answer_id: str) -> None:
        self._report.transports[transport] += 1
        broken_by = self._broken_by
        self._awaited = await self._tail() if broken_by else None
        opened = time.monotonic()
        source = {"sse": self._sse, "poll": self._poll, "websocket": self._websocket}[transport]
        first = True
        async for event in source():
            if first:
                self._report.resume_seconds.append(time.monotonic() - opened)
                first = False
            self._apply(event)
            if broken_by is not None and self._has_caught_up():
                self._report.caught_up(broken_by, opened)
                broken_by = None
            if self._checker.client.is_complete(answer_id):
                return

    def _apply(self, event: _Event) -> None:
        event_id, kind, data = event
        if kind == "history":
            self._report.histories[data["reason"]] += 1
        self._checker.apply(event_id, kind, data)
        if self._report.interrupted(self._session_id):
            if kind == "start" and data["attempt"] == 1:
                # The next answer: the one before had ended when its worker did.
                self._gone_on(answered=True)
            elif kind == "start":
                self._goes_on = True
            elif kind == "history" or (kind == "message" and data["is_complete"]):
                self._gone_on(answered=not self._goes_on)
            elif kind == "chunk" and self._goes_on:
                self._gone_on()
        if kind == "chunk":
            self._last_chunk = time.monotonic()

    def _gone_on(self, *, answered: bool = False) -> None:
        self._report.gone_on(self._session_id, last_chunk=self._last_chunk, answered=answered)
        self._goes_on = False

    def _has_caught_up(self) -> bool:
        if self._awaited is None:
            return False
        epoch, seq = (int(part) for part in self._checker.position.split("-"))
        return epoch != self._awaited[0] or seq >= self._awaited[1]

    async def _tail(self) -> tuple[int, int] | None:
        """Read where the session's log stands; None where Redis is away."""
        with contextlib.suppress(RedisError, OSError):
            log = keys.log(self._session_id)
            newest: Any = await self._stage.redis.xrevrange(log, count=1)
            epoch, seq = newest[0][0].decode().split("-") if newest else ("0", "0")
            return int(epoch), int(seq)
        return None

    def _end_of_node(self) -> Fault | None:
        """Say which fault ended the node that this was connected to; None where it lives."""
        if self._node is None or self._node in self._stage.cluster.web:
            return None
        killed, drained = (
            self._report.last_fault(f"web node {how}") for how in ("killed", "drained")
        )
        return max(
            (one for one in (killed, drained) if one), key=lambda one: one.began, default=None
        )

    async def _sse(self) -> Any:
        headers = {
            "Accept": "text/event-stream",
            "Last-Event-ID": self._checker.position,
        }
        path = f"/api/sessions/{self._session_id}/events"
        async with self._http() as http, http.stream("GET", path, headers=headers) as stream:
            if stream.status_code != 200:
                await stream.aread()
                self._refused(stream)
                await asyncio.sleep(_RETRY_SECONDS)
                return
            parser = SseParser()
            async for line in stream.aiter_lines():
                event = parser.line(line)
                if event is not None:
                    yield event

    async def _poll(self) -> Any:
        path = f"/api/sessions/{self._session_id}/events"
        while True:
            async with self._http() as http:
                answer = await http.get(
                    path,
                    params={"wait": 3, "last_event_id": self._checker.position},
                    headers={"Accept": "application/json"},
                )
            if answer.status_code != 200:
                self._refused(answer)
                await asyncio.sleep(_RETRY_SECONDS)
                return
            found = answer.json()
            if found["history"] is not None:
                yield found["position"], "history", found["history"]
            for event in found["events"]:
                yield event["id"], event["type"], event["data"]

    async def _websocket(self) -> Any:
        url = self._url().replace("http", "ws", 1)
        query = f"session_id={self._session_id}&last_event_id={self._checker.position}"
        async with connect(f"{url}/ws/chat?{query}", close_timeout=1, max_size=None) as socket:
            async for text in socket:
                frame = json.loads(text)
                if frame["type"] == "error":
                    self._report.refusals[frame["data"]["code"]] += 1
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                yield frame.get("id"), frame["type"], frame["data"]

    # ---- Keeping count.

    def _http(self) -> httpx.AsyncClient:
        # Without verification, which is not needed for plain HTTP and takes long to set up.
        return httpx.AsyncClient(base_url=self._url(), timeout=12, verify=False)  # noqa: S501

    def _url(self) -> str:
        self._node = self._chance.choice(self._stage.cluster.web)
        return self._stage.url(self._node)

    def _has_text(self, answer_id: str) -> bool:
        return bool(self._checker.client.messages.get(answer_id, {}).get("content"))

    def _refused(self, answer: httpx.Response) -> None:
        try:
            problem = answer.json()
        except ValueError:
            self._refusal_is_wrong(answer, f"{answer.content[:100]!r}")
            return
        self._report.refusals[problem["code"]] += 1
        if answer.status_code != 503:
            self._refusal_is_wrong(answer, str(problem))

    def _refusal_is_wrong(self, answer: httpx.Response, said: str) -> None:
        where = f"{answer.request.method} {answer.request.url.path}"
        self._breach(Breach.OTHER, f"{where} answered {answer.status_code}: {said}")

    def _breach(self, kind: Breach, sentence: str) -> None:
        self._report.breach(kind, f"{self._session_id}: {sentence}")
