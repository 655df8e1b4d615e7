"""A client that asks, reads over any transport, comes and goes, and checks everything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.chaos.report import Report
from tests.support.contract_client import ContractBreachError, ContractClient, SseParser
from tests.support.nodes import Cluster

_STUCK_SECONDS = 90.0
_RETRY_SECONDS = 0.2
_TRANSPORTS = ("sse", "poll", "websocket")
_Event = tuple[str | None, str, Any]


class Talker:
    """One session with one reader that keeps to the contract's rule."""

    def __init__(self, cluster: Cluster, number: int, seed: int, report: Report) -> None:
        """Take the cluster; what it does follows from the seed and its number."""
        self._cluster = cluster
        self._session_id = f"s-{number}"
        self._chance = random.Random(seed * 100_003 + number)
        self._report = report
        self._client = ContractClient()
        self._client.position = "0-0"
        self._last_event = 0.0

    async def talk(self, until: float) -> None:
        """Ask one question after the other until that moment (``time.monotonic``)."""
        turn = 0
        while time.monotonic() < until:
            turn += 1
            count = self._chance.randint(30, 200)
            question = f"/count {count} {self._chance.randint(5, 30)}"
            asked = await self._ask(question, f"key-{turn}")
            answer_id = asked["assistant_message"]["message_id"]
            stopped = await self._read_to_the_end(answer_id)
            if not self._client.is_complete(answer_id):
                self._breach(question, "has no end: a spinner for ever")
                return
            self._check(question, count, self._client.messages[answer_id], stopped=stopped)

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
        while not self._client.is_complete(answer_id):
            if time.monotonic() - began > _STUCK_SECONDS:
                return stopped
            transport = self._chance.choice(_TRANSPORTS)
            try:
                async with asyncio.timeout(self._chance.uniform(0.3, 4.0)):
                    await self._read(transport, answer_id)
            except TimeoutError:
                pass
            except (httpx.TransportError, WebSocketException, OSError):
                await asyncio.sleep(_RETRY_SECONDS)
            except ContractBreachError as breach:
                self._breach(transport, str(breach))
                self._client = ContractClient()
            if wants_stop and not stopped and self._has_text(answer_id):
                stopped = await self._stop(answer_id)
        return stopped

    async def _stop(self, answer_id: str) -> bool:
        with contextlib.suppress(httpx.TransportError):
            async with self._http() as http:
                answer = await http.post(f"/api/chat/{answer_id}/cancel")
            return answer.status_code == 202
        return False

    def _check(self, question: str, count: int, final: dict[str, Any], *, stopped: bool) -> None:
        self._report.answers[final["status"]] += 1
        self._report.attempts[final["attempt"]] += 1
        whole = " ".join(str(number) for number in range(1, count + 1))
        if not whole.startswith(final["content"]):
            self._breach(question, "has characters that are lost, repeated or reordered")
        elif final["status"] == "complete" and final["content"] != whole:
            self._breach(question, "looks whole and is not")
        if stopped and final["status"] != "cancelled":
            self._breach(question, f"was stopped and is {final['status']}")
        if final["status"] == "failed" and final["error"]["code"] != "attempts_exhausted":
            # One whose workers died three times fails visibly, as promised; nothing else may.
            self._breach(question, f"failed: {final['error']}")

    # ---- Reading.

    async def _read(self, transport: str, answer_id: str) -> None:
        self._report.transports[transport] += 1
        opened = time.monotonic()
        source = {"sse": self._sse, "poll": self._poll, "websocket": self._websocket}[transport]
        first = True
        async for event in source():
            if first:
                self._report.resume_seconds.append(time.monotonic() - opened)
                first = False
            self._apply(event)
            if self._client.is_complete(answer_id):
                return

    def _apply(self, event: _Event) -> None:
        event_id, kind, data = event
        now = time.monotonic()
        if kind == "start" and data["attempt"] > 1:
            self._report.failover_seconds.append(now - self._last_event)
        if kind == "history":
            self._report.histories[data["reason"]] += 1
        if event_id is not None:
            self._last_event = now
        self._client.apply(event_id, kind, data)

    async def _sse(self) -> Any:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(self._client.position)}
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
                    params={"wait": 3, "last_event_id": self._client.position},
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
        url = self._chance.choice(self._cluster.web).url.replace("http", "ws", 1)
        query = f"session_id={self._session_id}&last_event_id={self._client.position}"
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
        url = self._chance.choice(self._cluster.web).url
        return httpx.AsyncClient(base_url=url, timeout=25, verify=False)  # noqa: S501  plain HTTP

    def _has_text(self, answer_id: str) -> bool:
        return bool(self._client.messages.get(answer_id, {}).get("content"))

    def _refused(self, answer: httpx.Response) -> None:
        problem = answer.json()
        self._report.refusals[problem["code"]] += 1
        if answer.status_code != 503:
            self._breach(str(answer.request.url.path), f"answered {answer.status_code}: {problem}")

    def _breach(self, what: str, sentence: str) -> None:
        self._report.breaches.append(f"{self._session_id} {what}: {sentence}")
