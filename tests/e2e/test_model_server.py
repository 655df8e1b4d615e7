"""A model server through the whole product: which model is asked, and how its answers end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.contract_client import ContractClient
from tests.support.nodes import Node, ask, follow_to_the_end, messages, running_cluster
from tests.support.scripted_model import (
    DONE,
    Cut,
    Hang,
    Reply,
    finish,
    scripted_model,
    text,
    thought,
    usage,
)
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def _answer(node: Node, model: str) -> dict[str, Any]:
    asked = await ask(node, "What now?", model=model)
    client = ContractClient()
    client.position = asked["position"]
    answer_id = asked["assistant_message"]["message_id"]
    await follow_to_the_end([node], asked["session_id"], client, answer_id)
    stored = (await messages(node, asked["session_id"]))[-1]
    assert stored["content"] == client.text(answer_id)
    return stored


async def test_each_model_is_asked_at_its_server_and_ends_as_it_does(tmp_path: Path) -> None:
    async with (
        scripted_model(
            thought("Hm."), text("As far"), text(" as it goes"), finish("length"), usage(9, 4), DONE
        ) as short,
        scripted_model(text("Half of"), Cut()) as broken,
        scripted_model(text("One"), Hang()) as endless,
    ):
        listed = json.dumps(
            [
                {"id": "short", "base_url": short.base_url, "name": "Short", "model": "short-1b"},
                {"id": "broken", "base_url": broken.base_url},
                {"id": "endless", "base_url": endless.base_url},
            ]
        )
        async with running_cluster(tmp_path, web=1, workers=1, MODELS=listed) as cluster:
            (web,) = cluster.web
            async with httpx.AsyncClient(base_url=web.url) as http:
                models = (await http.get("/api/models")).json()
                refused = await http.post("/api/chat", json={"message": "?", "model": "other"})
            assert models["default"] == "short"
            assert [one["id"] for one in models["items"]] == ["short", "demo", "broken", "endless"]
            assert models["items"][0]["name"] == "Short"
            assert refused.status_code == 400
            assert refused.json()["models"] == ["demo", "short", "broken", "endless"]

            stored = await _answer(web, "short")
            assert (stored["status"], stored["content"]) == ("complete", "As far as it goes")
            assert stored["error"]["code"] == "length_stopped"
            assert stored["usage"] == {"prompt_tokens": 9, "completion_tokens": 4}
            assert short.received[0].body["model"] == "short-1b"

            stored = await _answer(web, "broken")
            assert (stored["status"], stored["content"]) == ("failed", "Half of")
            assert stored["error"]["code"] == "model_cut_off"

            asked = await ask(web, "What now?", model="endless")
            await eventually(lambda: endless.received, "the server is asked")
            async with httpx.AsyncClient(base_url=web.url) as http:
                answer_id = asked["assistant_message"]["message_id"]
                await http.post(f"/api/chat/{answer_id}/cancel")
            async with asyncio.timeout(10):
                await endless.left_by_client.wait()


async def test_an_answer_that_was_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    """From its last character, where the model can; and nothing of it is lost on the way."""
    begun = (text("As far"), finish("length"), DONE)
    rest = (text(" as it"), text(" goes."), finish(), DONE)
    async with (
        scripted_model(*rest, first=[begun]) as server,
        scripted_model(*rest, first=[begun]) as forgetful,
    ):
        listed = json.dumps(
            [
                {"id": "able", "base_url": server.base_url, "continues": True},
                {"id": "unable", "base_url": forgetful.base_url, "continues": False},
            ]
        )
        async with running_cluster(tmp_path, web=1, workers=1, MODELS=listed) as cluster:
            (web,) = cluster.web
            final: dict[str, Any] = {}
            for model, expected in (("able", "As far as it goes."), ("unable", " as it goes.")):
                stored = await _answer(web, model)
                assert stored["error"]["code"] == "length_stopped"
                again, client = await _again(web, stored, keep=True)
                assert again["content"] == "As far"
                await follow_to_the_end([web], stored["session_id"], client, again["message_id"])
                final = (await messages(web, stored["session_id"]))[-1]
                assert final["content"] == client.text(again["message_id"]) == expected
                assert (final["status"], final["error"]) == ("complete", None)
                kept = "As far" if model == "able" else ""
                assert [start["content"] for start in client.starts] == [kept]
            asked = server.received[-1].body["messages"]
            assert asked[-1] == {"role": "assistant", "content": "As far"}

            # Stopped before anybody went on with it, it is what it was.
            cluster.workers[0].kill()
            again, _ = await _again(web, final, keep=True)
            assert again["status"] == "queued"
            before = (await messages(web, final["session_id"]))[-1]
            assert before["content"] == final["content"]
            async with httpx.AsyncClient(base_url=web.url) as http:
                stopped = await http.post(f"/api/chat/{again['message_id']}/cancel")
            assert stopped.json()["status"] == "cancelled"
            after = (await messages(web, final["session_id"]))[-1]
            assert (after["status"], after["content"]) == ("cancelled", final["content"])


async def _again(
    node: Node, message: dict[str, Any], *, keep: bool
) -> tuple[dict[str, Any], ContractClient]:
    path = f"/api/chat/{message['message_id']}/regenerate"
    async with httpx.AsyncClient(base_url=node.url, timeout=10) as http:
        reply = await http.post(path, json={"keep": keep})
    assert reply.status_code == 202, reply.text
    client = ContractClient()
    client.position = reply.json()["position"]
    answer: dict[str, Any] = reply.json()["assistant_message"]
    return answer, client


async def test_a_server_that_is_left_alone_shows_in_the_health_of_web_nodes(tmp_path: Path) -> None:
    async with scripted_model(Reply(503, {})) as ailing, scripted_model() as unasked:
        listed = json.dumps(
            [
                {"id": "ailing", "base_url": ailing.base_url},
                {"id": "unasked", "base_url": unasked.base_url},
            ]
        )
        async with running_cluster(
            tmp_path,
            web=1,
            workers=1,
            MODELS=listed,
            MODEL_RETRIES="0",
            MODEL_CIRCUIT_FAILURES="1",
            MODEL_CIRCUIT_SECONDS="600",
        ) as cluster:
            (web,) = cluster.web

            def models() -> str:
                answer = httpx.get(f"{web.url}/health")
                assert answer.status_code == 200
                return str(answer.json()["components"]["models"]["status"])

            assert models() == "UP"
            codes = [(await _answer(web, "ailing"))["error"]["code"] for _ in range(2)]
            assert codes == ["model_error", "model_unavailable"]
            await eventually(lambda: models() == "DEGRADED", "the worker's word", seconds=20)
