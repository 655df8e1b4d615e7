"""Redis alone loses its power: what that costs, for each way in which it may write its file.

A kill leaves what was handed to the kernel; a power cut leaves what was synced. The server is
therefore killed, and the end of its file cut away that it need not have synced.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from redis.asyncio import Redis

from app.streams import keys
from tests.support.contract_client import ContractClient
from tests.support.nodes import Cluster, ask, follow_to_the_end, messages, running_cluster
from tests.support.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


def _file(cluster: Cluster) -> Path:
    (found,) = (cluster.directory / "valkey" / "appendonlydir").glob("*.incr.aof")
    return found


async def _lose_power(cluster: Cluster, synced: Callable[[int], int]) -> None:
    """Kill the server, keep as much of its file as is given, start it on that."""
    assert cluster.redis.pid is not None
    os.kill(cluster.redis.pid, signal.SIGKILL)
    await cluster.redis.stop()
    size = _file(cluster).stat().st_size
    os.truncate(_file(cluster), synced(size))
    await cluster.redis.start()


def _count(last: int) -> str:
    return " ".join(str(number) for number in range(1, last + 1))


@pytest.mark.parametrize("torn_bytes", [0, 7])
async def test_everysec_may_cost_an_attempt_and_no_accepted_question(
    tmp_path: Path, torn_bytes: int
) -> None:
    """Half an answer and a whole question with its job are gone; the last command kept is torn."""
    async with running_cluster(tmp_path, web=1, workers=1, WORKER_CONCURRENCY="1") as cluster:
        (node,) = cluster.web
        running = await ask(node, "/count 200 20")
        answer_id = running["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = running["position"]
        following = asyncio.ensure_future(
            follow_to_the_end([node], running["session_id"], client, answer_id)
        )
        await eventually(lambda: len(client.applied) > 20, "twenty chunks")
        await eventually(lambda: _file(cluster).stat().st_size > torn_bytes, "some of it synced")
        synced = _file(cluster).stat().st_size - torn_bytes
        seen = len(client.applied)
        await eventually(lambda: len(client.applied) > seen + 20, "twenty more, not synced")
        waiting = await ask(node, "/count 5 1")
        waiting_id = waiting["assistant_message"]["message_id"]

        await _lose_power(cluster, lambda size: min(synced, size))

        await following
        assert client.text(answer_id) == _count(200)
        other = ContractClient()
        await follow_to_the_end([node], waiting["session_id"], other, waiting_id)
        assert other.text(waiting_id) == _count(5)
        for asked, text in ((running, _count(200)), (waiting, _count(5))):
            (_, answer) = await messages(node, asked["session_id"])
            assert (answer["status"], answer["content"]) == ("complete", text)
        # The one that was being written is gone on with: no word is written twice.
        assert [start["attempt"] for start in client.starts] in ([1], [1, 2])
        # Who was ahead of what is left is told, and never given other words at the same place.
        assert set(client.histories) <= {"epoch"}


async def test_always_keeps_all_that_was_acknowledged(tmp_path: Path) -> None:
    """What a client was shown, and every job, is in the file before anybody hears of it."""
    async with running_cluster(tmp_path, web=1, workers=1, WORKER_CONCURRENCY="1") as cluster:
        async with Redis.from_url(cluster.redis_url) as redis:
            await redis.config_set("appendfsync", "always")
        (node,) = cluster.web
        running = await ask(node, "/count 200 20")
        answer_id = running["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = running["position"]
        following = asyncio.ensure_future(
            follow_to_the_end([node], running["session_id"], client, answer_id)
        )
        await eventually(lambda: len(client.applied) > 20, "twenty chunks")
        waiting = await ask(node, "/count 5 1")
        waiting_id = waiting["assistant_message"]["message_id"]
        shown = client.applied[-1]

        await _lose_power(cluster, lambda size: size)

        async with Redis.from_url(cluster.redis_url, decode_responses=True) as redis:
            kept: Any = await redis.xrange(keys.log(running["session_id"]), shown, shown)
            jobs: Any = await redis.xrange(keys.JOBS)
        assert [position for position, _ in kept] == [shown]
        assert waiting_id in {fields["message_id"] for _, fields in jobs}
        await following
        assert client.text(answer_id) == _count(200)
        other = ContractClient()
        await follow_to_the_end([node], waiting["session_id"], other, waiting_id)
        assert other.text(waiting_id) == _count(5)


Away = Literal["dead", "frozen"]


@pytest.mark.parametrize("how", ["dead", "frozen"])
async def test_with_redis_away_asking_is_refused_at_once_and_history_reads(
    tmp_path: Path, how: Away
) -> None:
    """503 with Retry-After; nothing is stored of what was refused; all goes on by itself.

    Neither waits for as long as a command may take: nobody would be told before the test's end.
    """
    async with running_cluster(tmp_path, web=1, workers=1, REDIS_TIMEOUT_SECONDS="60") as cluster:
        (node,) = cluster.web
        asked = await ask(node, "/count 3 1")
        answer_id = asked["assistant_message"]["message_id"]
        session_id = asked["session_id"]
        await follow_to_the_end([node], session_id, ContractClient(), answer_id)
        pid = cluster.redis.pid
        assert pid is not None
        if how == "dead":
            await cluster.redis.stop()
        else:
            os.kill(pid, signal.SIGSTOP)
        async with httpx.AsyncClient(base_url=node.url, timeout=4) as http:
            body = {"message": "anybody?", "session_id": session_id}
            refused = await http.post("/api/chat", json=body)
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            assert int(refused.headers["retry-after"]) > 0
            said = (await http.get(f"/api/sessions/{session_id}/messages", timeout=9)).json()
            assert [one["content"] for one in said["items"]] == ["/count 3 1", "1 2 3"]
        if how == "dead":
            await cluster.redis.start()
        else:
            os.kill(pid, signal.SIGCONT)
        again = await _ask_until_accepted(node.url, body)
        again_id = again["assistant_message"]["message_id"]
        client = ContractClient()
        await follow_to_the_end([node], session_id, client, again_id)
        assert [one["content"] for one in await messages(node, session_id)] == [
            "/count 3 1",
            "1 2 3",
            "anybody?",
            client.text(again_id),
        ]


async def _ask_until_accepted(url: str, body: dict[str, str]) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=10) as http, asyncio.timeout(20):
        while True:
            answer = await http.post("/api/chat", json=body)
            if answer.status_code == 202:
                accepted: dict[str, Any] = answer.json()
                return accepted
            assert answer.status_code == 503, answer.text
