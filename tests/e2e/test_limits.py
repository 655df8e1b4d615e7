"""What happens when there is too much, or a part is away: a clear answer, and nothing lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.support.contract_client import ContractClient
from tests.support.nodes import (
    Node,
    ask,
    follow_to_the_end,
    free_port,
    messages,
    read_stream,
    running_cluster,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


async def test_a_full_queue_refuses_and_stores_nothing(tmp_path: Path) -> None:
    """503 ``overloaded`` with Retry-After; there is room again once an answer has ended."""
    async with running_cluster(tmp_path, web=1, workers=0, JOB_QUEUE_LIMIT="2") as cluster:
        node = cluster.web[0]
        waiting = [await ask(node, "/count 2 1") for _ in range(2)]
        refused = await _ask_anyway(node, "one too many")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        assert (await _ask_anyway(node, "the same", "new-session")).status_code == 503
        async with httpx.AsyncClient(base_url=node.url) as http:
            assert (await http.get("/api/sessions/new-session")).status_code == 404
        cluster.start_worker("worker-late")
        for asked in waiting:
            answer_id = asked["assistant_message"]["message_id"]
            await follow_to_the_end([node], asked["session_id"], ContractClient(), answer_id)
        await ask(node, "there is room")


async def test_a_worker_gives_as_many_answers_at_once_as_it_may(tmp_path: Path) -> None:
    """The second question waits, queued, until the first is answered."""
    async with running_cluster(tmp_path, web=1, workers=1, WORKER_CONCURRENCY="1") as cluster:
        node = cluster.web[0]
        first, second = [await ask(node, "/count 60 20") for _ in range(2)]
        client, other = ContractClient(), ContractClient()
        client.position, other.position = first["position"], second["position"]
        await read_stream(node, first["session_id"], client, events=20)
        assert (await messages(node, second["session_id"]))[-1]["status"] == "queued"
        for asked, reader in ((first, client), (second, other)):
            answer_id = asked["assistant_message"]["message_id"]
            await follow_to_the_end([node], asked["session_id"], reader, answer_id)
            assert reader.text(answer_id).endswith(" 60")


async def test_with_redis_away_one_reads_and_streams_go_on_when_it_is_back(
    tmp_path: Path,
) -> None:
    """Asking is refused at once, what was said is there, and no stream ends."""
    async with running_cluster(tmp_path, web=1, workers=1) as cluster:
        node = cluster.web[0]
        asked = await ask(node, "/count 200 20")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        reading = asyncio.ensure_future(
            read_stream(node, session_id, client, until_complete=answer_id)
        )
        await eventually(lambda: len(client.applied) > 20, "twenty events")
        await cluster.redis.stop()
        refused = await _ask_anyway(node, "anybody there?")
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert refused.headers["retry-after"]
        said = await messages(node, session_id)
        assert [message["role"] for message in said] == ["user", "assistant"]
        assert not reading.done()
        await cluster.redis.start()
        await reading
        if not client.is_complete(answer_id):
            await follow_to_the_end([node], session_id, client, answer_id)
        whole = " ".join(str(number) for number in range(1, 201))
        assert client.text(answer_id) == whole
        assert (await messages(node, session_id))[-1]["content"] == whole


async def _ask_anyway(node: Node, message: str, session_id: str = "s-x") -> httpx.Response:
    async with httpx.AsyncClient(base_url=node.url, timeout=20) as http:
        return await http.post("/api/chat", json={"message": message, "session_id": session_id})


async def test_a_worker_tells_what_it_did(tmp_path: Path) -> None:
    """Its metrics are its own process's: a web node cannot show them."""
    port = free_port()
    async with running_cluster(
        tmp_path, web=1, workers=1, WORKER_METRICS_PORT=str(port)
    ) as cluster:
        asked = await ask(cluster.web[0], "/count 7 1")
        answer_id = asked["assistant_message"]["message_id"]
        await follow_to_the_end(cluster.web, asked["session_id"], ContractClient(), answer_id)
        async with httpx.AsyncClient() as http:
            told = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    assert "throughline_chunks_appended_total 7.0" in told
    assert 'throughline_answers_total{model="demo",outcome="complete"} 1.0' in told
