"""Two web nodes of a real deployment, each with copies of what the other has read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.contract_client import ContractClient
from tests.support.nodes import Node, ask, follow_to_the_end, messages, running_cluster

pytestmark = pytest.mark.slow


async def test_what_one_node_changed_another_shows_at_once(tmp_path: Path) -> None:
    """Nobody follows the session on the second node: only the database could tell it."""
    async with running_cluster(tmp_path, web=2, workers=1, DEMO_DELAY_MS="0") as cluster:
        here, there = cluster.web
        asked = await ask(here, "/echo one", session_id="s-1")
        await _answered(here, asked)
        first = await messages(here, "s-1")
        assert await messages(there, "s-1") == await messages(there, "s-1") == first
        assert await _hits(here) == {"database": 1.0}
        assert await _hits(there) == {"l2": 1.0, "l1": 1.0}

        asked = await ask(here, "/echo two", session_id="s-1")
        await _answered(here, asked)
        contents = [message["content"] for message in await messages(there, "s-1")]
        assert contents == ["/echo one", "one", "/echo two", "two"]

        async with httpx.AsyncClient(base_url=here.url, timeout=10) as client:
            deleted = await client.delete("/api/sessions/s-1")
            assert deleted.status_code == 204
        async with httpx.AsyncClient(base_url=there.url, timeout=10) as client:
            gone = await client.get("/api/sessions/s-1/messages")
            assert gone.status_code == 404


async def _answered(node: Node, asked: dict[str, Any]) -> None:
    client = ContractClient()
    # Without a position the stream would begin with the whole state, which is a read as well.
    client.position = asked["position"]
    await follow_to_the_end([node], "s-1", client, asked["assistant_message"]["message_id"])


async def _hits(node: Node) -> dict[str, float]:
    """Give how many reads each tier served."""
    async with httpx.AsyncClient(base_url=node.url, timeout=10) as client:
        exposed = (await client.get("/metrics")).text
    return {
        line.split('tier="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1])
        for line in exposed.splitlines()
        if line.startswith("throughline_history_reads_total{") and 'outcome="hit"' in line
    }
