"""A stream that is cut and resumed shows exactly what was missed, however it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.contract_client import ContractClient
from tests.support.databases import ENGINES, Engine, NewDatabase
from tests.support.nodes import Node, ask, follow_to_the_end, messages, read_stream, running_cluster

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("engine", ENGINES)
async def test_ask_stream_cut_resume_on_either_database(
    engine: Engine, new_database: NewDatabase, tmp_path: Path
) -> None:
    """Read whole once, then cut after each of its events and resumed: the same events follow."""
    async with running_cluster(
        tmp_path, web=1, workers=1, database_url=new_database(engine)
    ) as cluster:
        node = cluster.web[0]
        asked = await ask(node, "/count 20 5")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        whole = ContractClient()
        # A session whose log has not begun stands at 0-0: from there comes every event.
        whole.position = "0-0"
        seen = await read_stream(node, session_id, whole, until_complete=answer_id)
        events = [event for event in seen if event[0] is not None]
        assert whole.histories == []
        assert whole.messages[asked["user_message"]["message_id"]] == asked["user_message"]
        assert whole.text(answer_id) == (await messages(node, session_id))[-1]["content"]
        for cut in range(1, len(events)):
            client = ContractClient()
            client.position = "0-0"
            for event in events[:cut]:
                client.apply(*event)
            rest = await read_stream(node, session_id, client, until_complete=answer_id)
            assert [kind for _, kind, _ in rest[:1]] == ["welcome"]
            assert rest[1:] == events[cut:]
            assert client.messages == whole.messages
            polled = await _polled(node, session_id, whole.applied[cut - 1])
            assert polled["history"] is None
            assert polled["position"] == whole.applied[-1]
            assert [(one["id"], one["type"], one["data"]) for one in polled["events"]] == rest[1:]


async def test_a_long_poll_waits_for_what_comes_and_misses_nothing(tmp_path: Path) -> None:
    """Poll after poll from the position of the one before gives the whole answer."""
    async with running_cluster(tmp_path, web=2, workers=1) as cluster:
        asked = await ask(cluster.web[0], "/count 60 10")
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        polls = 0
        while not client.is_complete(answer_id):
            assert client.position is not None
            node = cluster.web[polls % 2]
            answer = await _polled(node, asked["session_id"], client.position, wait=10)
            for event in answer["events"]:
                client.apply(event["id"], event["type"], event["data"])
            assert client.position == answer["position"]
            polls += 1
        assert client.histories == []
        assert client.text(answer_id) == " ".join(str(number) for number in range(1, 61))


async def test_a_position_that_is_not_the_logs_gets_the_whole_state(tmp_path: Path) -> None:
    """Ahead of the log, or of another epoch: never a partial replay that looks whole."""
    async with running_cluster(tmp_path, web=1, workers=1) as cluster:
        node = cluster.web[0]
        asked = await ask(node, "/count 3 1")
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        await follow_to_the_end([node], asked["session_id"], client, answer_id)
        assert client.position is not None
        epoch, seq = client.position.split("-")
        for strange in (f"{epoch}-{int(seq) + 1}", f"{int(epoch) + 5}-0", f"{int(epoch) - 5}-3"):
            answer = await _polled(node, asked["session_id"], strange)
            assert answer["events"] == []
            assert answer["history"]["reason"] == "epoch"
            assert answer["position"] == client.position
            contents = [message["content"] for message in answer["history"]["messages"]]
            assert contents == ["/count 3 1", "1 2 3"]


async def _polled(node: Node, session_id: str, position: str, wait: int = 0) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=node.url, timeout=40) as http:
        answer = await http.get(
            f"/api/sessions/{session_id}/events",
            params={"wait": wait},
            headers={"Accept": "application/json", "Last-Event-ID": position},
        )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
