"""What this product is for: an answer survives its readers, its nodes and its workers."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from tests.support.contract_client import ContractClient
from tests.support.nodes import (
    LEASE_SECONDS,
    ask,
    follow_to_the_end,
    messages,
    read_stream,
    running_cluster,
)
from tests.support.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


def _count(last: int) -> str:
    return " ".join(str(number) for number in range(1, last + 1))


async def test_a_client_that_changes_nodes_all_the_time_gets_a_whole_answer(
    tmp_path: Path,
) -> None:
    """Every reconnect goes to the other node; each position follows on the one before."""
    async with running_cluster(tmp_path, web=2, workers=2) as cluster:
        asked = await ask(cluster.web[0], "/count 150 10")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        turn = 0
        while not client.is_complete(answer_id):
            await read_stream(
                cluster.web[turn % 2], session_id, client, until_complete=answer_id, events=7
            )
            turn += 1
        assert turn > 10
        assert client.histories == []
        assert client.text(answer_id) == _count(150)
        stored = await messages(cluster.web[1], session_id)
        assert stored[-1]["content"] == client.text(answer_id)


async def test_an_answer_goes_on_after_its_worker_was_killed(tmp_path: Path) -> None:
    """SIGKILL in the middle of ``/count 300 20``: the other worker goes on where it stopped."""
    async with running_cluster(tmp_path, web=1, workers=2) as cluster:
        asked = await ask(cluster.web[0], "/count 300 20")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        await read_stream(cluster.web[0], session_id, client, events=40)
        owner = await _owner(cluster.redis_url, session_id)
        victim = next(worker for worker in cluster.workers if worker.name == owner)
        victim.kill()
        killed_at = time.monotonic()
        shown = client.text(answer_id)
        while len(client.starts) < 2:
            await read_stream(cluster.web[0], session_id, client, events=1)
        gap = time.monotonic() - killed_at
        await follow_to_the_end(cluster.web, session_id, client, answer_id)
        assert client.text(answer_id) == _count(300)
        assert [start["attempt"] for start in client.starts] == [1, 2]
        assert client.starts[1]["content"].startswith(shown)
        assert client.histories == []
        assert gap < LEASE_SECONDS + 1
        assert (await messages(cluster.web[0], session_id))[-1]["status"] == "complete"


async def test_a_worker_that_was_frozen_past_its_lease_writes_nothing_more(
    tmp_path: Path,
) -> None:
    """Woken up in the middle of the other's attempt, it does not get one character in."""
    async with running_cluster(tmp_path, web=1, workers=2) as cluster:
        asked = await ask(cluster.web[0], "/count 300 20")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        await read_stream(cluster.web[0], session_id, client, events=30)
        owner = await _owner(cluster.redis_url, session_id)
        frozen = next(worker for worker in cluster.workers if worker.name == owner)
        frozen.signal(signal.SIGSTOP)
        while len(client.starts) < 2:
            await read_stream(cluster.web[0], session_id, client, events=1)
        frozen.signal(signal.SIGCONT)
        await follow_to_the_end(cluster.web, session_id, client, answer_id)
        assert client.text(answer_id) == _count(300)
        assert [start["attempt"] for start in client.starts] == [1, 2]
        stored = (await messages(cluster.web[0], session_id))[-1]
        assert (stored["content"], stored["attempt"]) == (_count(300), 2)


async def test_an_answer_is_given_although_redis_was_emptied(tmp_path: Path) -> None:
    """FLUSHALL mid-answer: clients are told by ``history`` with reason ``epoch``."""
    async with running_cluster(tmp_path, web=1, workers=1) as cluster:
        asked = await ask(cluster.web[0], "/count 150 20")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        await read_stream(cluster.web[0], session_id, client, events=30)
        redis = Redis.from_url(cluster.redis_url)
        await redis.flushall()
        await redis.aclose()
        await follow_to_the_end(cluster.web, session_id, client, answer_id)
        assert "epoch" in client.histories
        assert set(client.histories) == {"epoch"}
        assert client.text(answer_id) == _count(150)
        assert (await messages(cluster.web[0], session_id))[-1]["content"] == _count(150)


async def test_a_question_that_waits_is_answered_although_redis_was_emptied(
    tmp_path: Path,
) -> None:
    """Nobody had begun it, and its job is gone: the database knows of it."""
    async with running_cluster(tmp_path, web=1, workers=0) as cluster:
        asked = await ask(cluster.web[0], "/count 5 1")
        redis = Redis.from_url(cluster.redis_url)
        await redis.flushall()
        await redis.aclose()
        cluster.start_worker("worker-late")
        client = ContractClient()
        answer_id = asked["assistant_message"]["message_id"]
        await follow_to_the_end(cluster.web, asked["session_id"], client, answer_id)
        assert client.text(answer_id) == "1 2 3 4 5"


async def test_a_worker_that_is_told_to_stop_hands_its_answer_over_at_once(
    tmp_path: Path,
) -> None:
    """SIGTERM: the other worker goes on long before the lease would have ended."""
    async with running_cluster(tmp_path, web=1, workers=2, LEASE_TTL_SECONDS="30") as cluster:
        asked = await ask(cluster.web[0], "/count 200 20")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        await read_stream(cluster.web[0], session_id, client, events=30)
        owner = await _owner(cluster.redis_url, session_id)
        stopped = next(worker for worker in cluster.workers if worker.name == owner)
        stopped.signal(signal.SIGTERM)
        await follow_to_the_end(cluster.web, session_id, client, answer_id)
        assert stopped.process.wait(timeout=10) == 0
        assert client.text(answer_id) == _count(200)
        assert [start["attempt"] for start in client.starts] == [1, 2]


async def test_a_web_node_that_drains_says_bye_and_the_client_goes_on_elsewhere(
    tmp_path: Path,
) -> None:
    """SIGTERM to the node with an open stream: ``bye``, exit, and not one event lost."""
    async with running_cluster(tmp_path, web=2, workers=1) as cluster:
        first, second = cluster.web
        asked = await ask(first, "/count 150 20")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        reading = asyncio.ensure_future(
            read_stream(first, session_id, client, until_complete=answer_id)
        )
        await eventually(lambda: len(client.applied) > 10, "ten events")
        began = time.monotonic()
        first.signal(signal.SIGTERM)
        seen = await reading
        assert await asyncio.to_thread(first.process.wait, 10) == 0
        assert time.monotonic() - began < 8, "it did not drain, it was waited for"
        assert seen[-1][1] == "bye"
        assert seen[-1][2]["reason"] == "drain"
        assert seen[-1][2]["reconnect"] is True
        await follow_to_the_end([second], session_id, client, answer_id)
        assert client.text(answer_id) == _count(150)
        assert client.histories == []


async def test_a_web_node_that_is_killed_costs_its_client_one_reconnect(tmp_path: Path) -> None:
    """SIGKILL: the connection breaks, the other node has everything."""
    async with running_cluster(tmp_path, web=2, workers=1) as cluster:
        first, second = cluster.web
        asked = await ask(first, "/count 150 20")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        reading = asyncio.ensure_future(
            read_stream(first, session_id, client, until_complete=answer_id)
        )
        await eventually(lambda: len(client.applied) > 10, "ten events")
        first.kill()
        await reading
        await follow_to_the_end([second], session_id, client, answer_id)
        assert client.text(answer_id) == _count(150)
        assert client.histories == []


async def test_a_stop_holds_on_any_node_and_although_the_worker_is_frozen(
    tmp_path: Path,
) -> None:
    """Accepted by the node that does not stream it; obeyed by whoever has the answer next."""
    async with running_cluster(tmp_path, web=2, workers=2) as cluster:
        first, second = cluster.web
        asked = await ask(first, "/count 1000 20")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        await read_stream(first, session_id, client, events=20)
        owner = await _owner(cluster.redis_url, session_id)
        frozen = next(worker for worker in cluster.workers if worker.name == owner)
        frozen.signal(signal.SIGSTOP)
        async with httpx.AsyncClient(base_url=second.url) as http:
            stopped = await http.post(f"/api/chat/{answer_id}/cancel")
            assert stopped.status_code == 202, stopped.text
            await follow_to_the_end([first], session_id, client, answer_id)
            frozen.signal(signal.SIGCONT)
            again = await http.post(f"/api/chat/{answer_id}/cancel")
        assert (again.status_code, again.json()["status"]) == (200, "cancelled")
        stored = (await messages(second, session_id))[-1]
        assert stored["status"] == "cancelled"
        assert stored["content"] == client.text(answer_id)
        assert _count(1000).startswith(stored["content"])
        assert stored["content"]


async def test_a_stop_is_obeyed_without_any_worker(tmp_path: Path) -> None:
    """A question that nobody has begun to answer ends where the stop was accepted."""
    async with running_cluster(tmp_path, web=1, workers=0) as cluster:
        asked = await ask(cluster.web[0], "hello")
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        async with httpx.AsyncClient(base_url=cluster.web[0].url) as http:
            stopped = await http.post(f"/api/chat/{answer_id}/cancel")
        assert (stopped.status_code, stopped.json()["status"]) == (202, "cancelled")
        await read_stream(cluster.web[0], asked["session_id"], client, until_complete=answer_id)
        assert client.messages[answer_id]["status"] == "cancelled"


async def test_a_job_that_kills_its_workers_fails_and_the_queue_goes_on(tmp_path: Path) -> None:
    """After three attempts without a word the answer fails visibly; the next one is given."""
    async with running_cluster(tmp_path, web=1, workers=0, LEASE_TTL_SECONDS="0.5") as cluster:
        node = cluster.web[0]
        poisoned = await ask(node, "/stall 3 600")
        answer_id = poisoned["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = poisoned["position"]
        for number in range(3):
            worker = cluster.start_worker(f"victim-{number}")
            while len(client.starts) <= number or not client.text(answer_id):
                await read_stream(node, poisoned["session_id"], client, events=1)
            worker.kill()
        cluster.start_worker("survivor")
        await follow_to_the_end([node], poisoned["session_id"], client, answer_id)
        final = client.messages[answer_id]
        assert (final["status"], final["error"]["code"]) == ("failed", "attempts_exhausted")
        assert final["content"]
        asked = await ask(node, "/count 3 1")
        other = ContractClient()
        other_id = asked["assistant_message"]["message_id"]
        await follow_to_the_end([node], asked["session_id"], other, other_id)
        assert other.text(other_id) == "1 2 3"


async def _owner(redis_url: str, session_id: str) -> str:
    redis = Redis.from_url(redis_url, decode_responses=True)
    try:
        owner = await redis.get(f"session:owner:{{{session_id}}}")
        return str(owner).rpartition(":")[0]
    finally:
        await redis.aclose()
