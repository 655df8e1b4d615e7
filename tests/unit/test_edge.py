"""The outermost layer, where the server below it gives a request up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.telemetry import create_metrics
from app.web.edge import Edge


class _Cancelled:
    """One request whose application never answers, or has begun to, and is cancelled."""

    def __init__(self, *, begun: bool) -> None:
        self.sent: list[Any] = []
        self.waiting = asyncio.Event()
        self._begun = begun

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        if self._begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        self.waiting.set()
        await asyncio.Event().wait()

    async def run(self) -> None:
        async def send(message: Any) -> None:
            self.sent.append(message)

        async def receive() -> Any:
            await asyncio.Event().wait()

        scope: Any = {
            "type": "http",
            "method": "POST",
            "path": "/api/chat",
            "headers": [],
            "query_string": b"",
            "state": {},
        }
        edge = Edge(self.application, create_metrics(), methods={})
        serving = asyncio.create_task(edge(scope, receive, send))
        await self.waiting.wait()
        serving.cancel()
        await serving


async def test_a_request_that_a_stopping_node_gives_up_is_told_to_come_again() -> None:
    """It waited for a part that was away for longer than the node may take to stop."""
    request = _Cancelled(begun=False)
    await request.run()
    start, body = request.sent
    assert start["status"] == 503
    headers = {name.lower(): value for name, value in start["headers"]}
    assert int(headers[b"retry-after"]) > 0
    assert headers[b"content-type"] == b"application/problem+json"
    assert int(headers[b"content-length"]) == len(body["body"])
    problem = json.loads(body["body"])
    assert (problem["code"], problem["instance"]) == ("unavailable", "/api/chat")


async def test_a_response_that_has_begun_is_only_cut() -> None:
    request = _Cancelled(begun=True)
    with pytest.raises(asyncio.CancelledError):
        await request.run()
    assert [message["type"] for message in request.sent] == ["http.response.start"]
