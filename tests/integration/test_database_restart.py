"""The database goes away and comes back while an answer is being written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent

from tests.support.contract_client import ContractClient
from tests.support.databases import NewDatabase
from tests.support.postgresql import PostgresqlServer
from tests.support.web import ask, following, serving

_LAST = 250
_WHOLE = " ".join(str(number) for number in range(1, _LAST + 1))


@asynccontextmanager
async def _away(server: PostgresqlServer) -> AsyncIterator[None]:
    await asyncio.to_thread(server.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


async def _read(
    events: AsyncIterator[ServerSentEvent], client: ContractClient, until: Callable[[], bool]
) -> None:
    async with asyncio.timeout(40):
        async for event in events:
            client.apply(event.id or None, event.event, event.json())
            if until():
                return
    raise AssertionError("the stream ended")


@pytest.mark.postgresql
async def test_a_running_answer_goes_on_and_is_stored_when_the_database_is_back(
    tmp_path: Path, new_database: NewDatabase, postgresql_server: PostgresqlServer
) -> None:
    """Asking is refused with 503 meanwhile, and nothing of it is stored."""
    url = new_database("postgresql")
    async with (
        serving(tmp_path, migrated=False, database_url=url) as node,
        node.client() as http,
    ):
        asked = await ask(http, f"/count {_LAST} 20")
        answer_id = asked["assistant_message"]["message_id"]
        body = {"message": "anybody?", "session_id": "another", "client_message_id": "one"}
        client = ContractClient()
        path = f"/api/sessions/{asked['session_id']}/events"
        async with following(http, path, **{"Last-Event-ID": asked["position"]}) as events:
            client.position = asked["position"]
            await _read(events, client, lambda: answer_id in client.messages)
            async with _away(postgresql_server):
                refused = await http.post("/api/chat", json=body)
                assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
                assert int(refused.headers["retry-after"]) > 0
                await _read(events, client, lambda: client.text(answer_id) == _WHOLE)
                # Final is only what is stored, and nothing can be.
                assert not client.is_complete(answer_id)
            await _read(events, client, lambda: client.is_complete(answer_id))
        final = client.messages[answer_id]
        assert (final["status"], final["attempt"], final["content"]) == ("complete", 1, _WHOLE)
        accepted: list[httpx.Response] = []

        async def ask_again() -> bool:
            accepted.append(await http.post("/api/chat", json=body))
            return accepted[-1].status_code == 202

        async with asyncio.timeout(30):
            while not await ask_again():
                assert accepted[-1].status_code == 503, accepted[-1].text
        stored: dict[str, Any] = (await http.get("/api/sessions/another/messages")).json()
        assert [one["role"] for one in stored["items"]] == ["user", "assistant"]
