"""How long an answer is interrupted for, with the settings that ship."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from redis.asyncio import Redis

from app.config import Settings
from app.streams import keys
from tests.support.contract_client import ContractClient, SseParser
from tests.support.nodes import (
    Cluster,
    Node,
    ask,
    follow_to_the_end,
    messages,
    read_stream,
    running_cluster,
)
from tests.support.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

_LEASE_SECONDS = Settings.model_fields["lease_ttl_seconds"].default
_READERS = 12


class _Asked(NamedTuple):
    """A question whose answer is being written, and who reads it."""

    session_id: str
    answer_id: str
    client: ContractClient


async def _begun(node: Node, question: str) -> _Asked:
    """Ask, and read until there is text."""
    asked = await ask(node, question)
    client = ContractClient()
    client.position = asked["position"]
    answer_id = asked["assistant_message"]["message_id"]
    while not client.messages.get(answer_id, {}).get("content"):
        await read_stream(node, asked["session_id"], client, events=1)
    return _Asked(asked["session_id"], answer_id, client)


async def _owner(cluster: Cluster, session_id: str) -> Node:
    async with Redis.from_url(cluster.redis_url, decode_responses=True) as redis:
        held = await redis.get(keys.owner(session_id))
    name = str(held).rpartition(":")[0]
    return next(worker for worker in cluster.workers if worker.name == name)


async def _gap(cluster: Cluster, asked: _Asked, end: Callable[[Node], None]) -> float:
    """End the worker; give the seconds until a reader is given the next chunk."""
    owner = await _owner(cluster, asked.session_id)
    began = time.monotonic()
    end(owner)
    reading = asyncio.ensure_future(
        read_stream(cluster.web[0], asked.session_id, asked.client, until_complete=asked.answer_id)
    )
    await eventually(lambda: len(asked.client.starts) > 1, "another attempt", seconds=30)
    kept = len(asked.client.starts[1]["content"])
    await eventually(lambda: len(asked.client.text(asked.answer_id)) > kept, "its next chunk")
    gap = time.monotonic() - began
    await reading
    assert asked.client.text(asked.answer_id) == " ".join(str(one) for one in range(1, 401))
    assert [start["attempt"] for start in asked.client.starts] == [1, 2]
    return gap


async def test_after_a_kill_the_next_chunk_comes_within_the_lease_and_a_second(
    tmp_path: Path,
) -> None:
    async with running_cluster(
        tmp_path, web=1, workers=2, LEASE_TTL_SECONDS=str(_LEASE_SECONDS)
    ) as cluster:
        asked = await _begun(cluster.web[0], "/count 400 20")
        assert await _gap(cluster, asked, Node.kill) < _LEASE_SECONDS + 1


async def test_after_a_worker_was_told_to_stop_the_next_chunk_comes_within_a_second(
    tmp_path: Path,
) -> None:
    async with running_cluster(
        tmp_path, web=1, workers=2, LEASE_TTL_SECONDS=str(_LEASE_SECONDS)
    ) as cluster:
        asked = await _begun(cluster.web[0], "/count 400 20")
        gap = await _gap(cluster, asked, lambda worker: worker.signal(signal.SIGTERM))
        assert gap < 1


async def test_after_a_web_node_was_killed_its_readers_catch_up_within_a_second(
    tmp_path: Path,
) -> None:
    """Each reconnects once, at the other node, and has all that the log had then."""
    async with running_cluster(tmp_path, web=2, workers=1) as cluster:
        first, second = cluster.web
        begun = [await _begun(first, "/count 150 40") for _ in range(_READERS)]
        reading = [
            asyncio.ensure_future(
                read_stream(first, one.session_id, one.client, until_complete=one.answer_id)
            )
            for one in begun
        ]
        first.kill()
        await asyncio.gather(*reading)
        assert not any(one.client.is_complete(one.answer_id) for one in begun)
        async with Redis.from_url(cluster.redis_url, decode_responses=True) as redis:
            newest: list[Any] = [
                await redis.xrevrange(keys.log(one.session_id), count=1) for one in begun
            ]
        tails = [str(entries[0][0]) for entries in newest]

        # One for all: to make a client takes longer than what is measured here.
        async with httpx.AsyncClient(base_url=second.url, timeout=30) as http:

            async def catch_up(one: _Asked, tail: str) -> float:
                began = time.monotonic()
                async with http.stream(
                    "GET",
                    f"/api/sessions/{one.session_id}/events",
                    headers={
                        "Accept": "text/event-stream",
                        "Last-Event-ID": str(one.client.position),
                    },
                ) as stream:
                    parser = SseParser()
                    async for line in stream.aiter_lines():
                        if event := parser.line(line):
                            one.client.apply(*event)
                        if tail in one.client.applied:
                            break
                return time.monotonic() - began

            took = await asyncio.gather(
                *(catch_up(one, tail) for one, tail in zip(begun, tails, strict=True))
            )
        assert max(took) < 1
        for one in begun:
            await follow_to_the_end([second], one.session_id, one.client, one.answer_id)
            assert one.client.text(one.answer_id) == " ".join(str(n) for n in range(1, 151))
            assert one.client.histories == []


@pytest.mark.parametrize("gone", ["killed", "frozen"])
async def test_a_stop_holds_although_the_one_who_should_obey_is_gone(
    tmp_path: Path, gone: str
) -> None:
    """Nobody else is there when it is accepted; whoever comes after writes not one word more."""
    async with running_cluster(tmp_path, web=1, workers=1, LEASE_TTL_SECONDS="1") as cluster:
        (node,) = cluster.web
        asked = await _begun(node, "/count 1000 20")
        (worker,) = cluster.workers
        worker.signal(signal.SIGKILL if gone == "killed" else signal.SIGSTOP)
        async with httpx.AsyncClient(base_url=node.url) as http:
            stopped = await http.post(f"/api/chat/{asked.answer_id}/cancel")
        assert stopped.status_code == 202, stopped.text
        cluster.start_worker("worker-late")
        await follow_to_the_end([node], asked.session_id, asked.client, asked.answer_id)
        worker.signal(signal.SIGCONT) if gone == "frozen" else worker.process.wait(10)
        (_, answer) = await messages(node, asked.session_id)
        assert (answer["status"], answer["attempt"]) == ("cancelled", 1)
        assert answer["content"] == asked.client.text(asked.answer_id)
        # The late one that obeyed goes on to answer what comes next.
        later = await ask(node, "/count 3 1", session_id=asked.session_id)
        later_id = later["assistant_message"]["message_id"]
        await follow_to_the_end([node], asked.session_id, asked.client, later_id)
        assert asked.client.text(later_id) == "1 2 3"
