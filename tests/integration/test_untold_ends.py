"""A worker dies between the commit of a final state and its entry in the session log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.db import attempts
from app.db.engine import Database
from app.db.results import Begun
from app.domain.messages import Status
from app.domain.position import Position
from app.streams.connection import connect
from app.streams.redis_log import RedisSessionLog
from app.streams.session_log import Claimed
from tests.support.web import WebNode, serving

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def _answer_and_die(node: WebNode, session_id: str, message_id: str) -> None:
    """Do what a worker does up to the moment before it tells the final state."""
    redis = connect(node.settings.redis_url or "", timeout_seconds=5, max_connections=1)
    log = RedisSessionLog(redis, ttl_seconds=60, max_entries=1000)
    database = Database(node.settings.database_address)
    try:
        claimed = await log.claim(session_id, message_id, "worker-that-dies", 60_000)
        assert isinstance(claimed, Claimed)
        begun = await attempts.begin_attempt(
            database,
            message_id=message_id,
            max_attempts=3,
            max_turns=10,
            now=_NOW,
            events=lambda _: [],
        )
        assert isinstance(begun, Begun)
        await log.start(claimed.lease, message_id, 1, kept="", entries=[], entries_if_unknown=[])
        assert await attempts.finish_answer(
            database,
            message_id=message_id,
            attempt=1,
            status=Status.COMPLETE,
            content="All of it.",
            error=None,
            usage=None,
            now=_NOW,
            events=lambda _: [],
        )
    finally:
        await database.close()
        log.close()
        await redis.aclose(close_connection_pool=True)


async def test_the_next_question_tells_the_end_that_was_not_told(tmp_path: Path) -> None:
    """Else a page would show it as being written until the answer after it has ended."""
    async with serving(tmp_path, worker=False) as node, node.client() as client:

        async def ask(text: str) -> dict[str, Any]:
            sent = {"session_id": "s-1", "message": text}
            response = await client.post("/api/chat", json=sent)
            assert response.status_code == 202, response.text
            answer: dict[str, Any] = response.json()
            return answer

        async def events_after(position: Position) -> list[dict[str, Any]]:
            polled = await client.get(
                "/api/sessions/s-1/events",
                params={"transport": "poll", "last_event_id": str(position)},
            )
            found: list[dict[str, Any]] = polled.json()["events"]
            return found

        first = await ask("One?")
        answer_id = first["assistant_message"]["message_id"]
        await _answer_and_die(node, "s-1", answer_id)
        before = Position.parse(first["position"])
        assert await events_after(before) == []

        second = await ask("Two?")

        told = await events_after(before)
        (final,) = [event for event in told if event["data"]["message_id"] == answer_id]
        assert final["type"] == "message"
        assert (final["data"]["status"], final["data"]["content"]) == ("complete", "All of it.")
        # What is awaited now is the second answer's, whatever was told of the first.
        state = (await client.get("/api/sessions/s-1/messages")).json()
        assert state["items"][-1]["message_id"] == second["assistant_message"]["message_id"]
        assert state["items"][-1]["status"] == "queued"
