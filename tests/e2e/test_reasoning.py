"""What a model thinks before it answers: from its server to every client, and past a death."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.streams import keys
from tests.support.contract_client import ContractClient
from tests.support.nodes import (
    Cluster,
    Node,
    ask,
    follow_to_the_end,
    messages,
    read_stream,
    running_cluster,
)
from tests.support.scripted_model import DONE, Cut, finish, scripted_model, text, thought, usage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def _answered(node: Node, question: str, **body: str) -> dict[str, Any]:
    """Ask, follow to the end, and check that what was followed is what is stored."""
    asked = await ask(node, question, **body)
    client = ContractClient()
    client.position = asked["position"]
    answer_id = asked["assistant_message"]["message_id"]
    await follow_to_the_end([node], asked["session_id"], client, answer_id)
    stored = (await messages(node, asked["session_id"]))[-1]
    assert client.messages[answer_id] == stored
    return stored


async def test_thoughts_of_every_kind_of_server_are_told_stored_and_not_given_back(
    tmp_path: Path,
) -> None:
    said = (text("It is"), text(" five."), finish(), usage(9, 7), DONE)
    async with (
        scripted_model(thought("Two and "), thought("three."), *said) as first,
        scripted_model(thought("Two and ", name="reasoning"), thought("three."), *said) as second,
        scripted_model(text("<thi"), text("nk>Two and three."), text("</think>\n"), *said) as third,
        scripted_model(*said) as plain,
        scripted_model(thought("Two and three."), Cut()) as broken,
    ):
        servers = {
            "deltas": first, "other": second, "tags": third, "plain": plain, "broken": broken,
        }  # fmt: skip
        listed = json.dumps(
            [{"id": name, "base_url": server.base_url} for name, server in servers.items()]
        )
        async with running_cluster(tmp_path, web=1, workers=1, MODELS=listed) as cluster:
            (web,) = cluster.web
            for name in ("deltas", "other", "tags"):
                stored = await _answered(web, "2 + 3?", model=name)
                assert stored["reasoning"] == "Two and three.", name
                assert (stored["content"], stored["status"]) == ("It is five.", "complete")
                assert stored["usage"] == {"prompt_tokens": 9, "completion_tokens": 7}
                # The next question brings the answer back to the server, and no thoughts.
                await _answered(web, "Sure?", model=name, session_id=stored["session_id"])
                told = servers[name].received[-1].body["messages"]
                assert [turn["content"] for turn in told] == ["2 + 3?", "It is five.", "Sure?"]
                assert "Two and" not in json.dumps(servers[name].received[-1].body)

            stored = await _answered(web, "2 + 3?", model="plain")
            assert stored["reasoning"] is None

            stored = await _answered(web, "2 + 3?", model="broken")
            assert (stored["content"], stored["reasoning"]) == ("", "Two and three.")
            assert stored["error"]["code"] == "model_cut_off"


async def _kill_the_owner(cluster: Cluster, session_id: str) -> None:
    redis = Redis.from_url(cluster.redis_url)
    owner = await redis.get(keys.owner(session_id))
    await redis.aclose()
    assert isinstance(owner, bytes), "nobody writes the answer any more"
    name = owner.decode().rpartition(":")[0]
    next(worker for worker in cluster.workers if worker.name == name).kill()


@pytest.mark.chaos
@pytest.mark.parametrize("events", [30, 110], ids=["while it thinks", "after its first words"])
async def test_an_answer_outlives_its_worker(tmp_path: Path, events: int) -> None:
    """Among the thoughts it is begun again; what they led to is gone on with, thoughts kept."""
    async with running_cluster(tmp_path, web=1, workers=2) as cluster:
        (web,) = cluster.web
        asked = await ask(web, "/think 80 300 20")
        session_id = asked["session_id"]
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        await read_stream(web, session_id, client, events=events)
        seen = client.text(answer_id), client.reasoning(answer_id)
        assert bool(seen[0]) is (events > 80)
        await _kill_the_owner(cluster, session_id)
        while len(client.starts) < 2:
            await read_stream(web, session_id, client, events=1)
        kept = client.starts[1]
        if seen[0]:
            assert kept["content"].startswith(seen[0])
            assert kept["reasoning"] == seen[1]
        await follow_to_the_end([web], session_id, client, answer_id)

        stored = (await messages(web, session_id))[-1]
        assert client.histories == []
        assert client.messages[answer_id] == stored
        assert stored["content"] == " ".join(str(number) for number in range(1, 301))
        # Neither lost nor thought twice.
        assert len(stored["reasoning"].split()) == 80
        if seen[1] is not None and seen[0]:
            assert stored["reasoning"] == seen[1]
