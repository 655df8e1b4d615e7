"""Reasoning through a web node and a worker: every way to read it, and what ends in its middle."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.contract_client import ContractClient
from tests.support.web import WebNode, answered, ask, following, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_THOUGHT = "These words are here because"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebNode]:
    async with serving(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest_asyncio.fixture(loop_scope="module")
async def client(node: WebNode) -> AsyncIterator[httpx.AsyncClient]:
    async with node.client() as client:
        yield client


async def _state(client: httpx.AsyncClient, asked: dict[str, Any]) -> dict[str, Any]:
    """Give the answer as a reader is given it now."""
    page = await client.get(f"/api/sessions/{asked['session_id']}/messages")
    state: dict[str, Any] = page.json()["items"][-1]
    return state


async def _asked_until(
    client: httpx.AsyncClient, question: str, field: str, **fields: Any
) -> dict[str, Any]:
    """Ask, and wait until the answer has some of a field."""
    asked = await ask(client, question, **fields)
    path = f"/api/sessions/{asked['session_id']}/events?last_event_id={asked['position']}"
    async with following(client, path, Accept="text/event-stream") as events:
        await until(events, {"content": "chunk", "reasoning": "reasoning"}[field])
    return asked


async def _again(client: httpx.AsyncClient, asked: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer_id = asked["assistant_message"]["message_id"]
    response = await client.post(f"/api/chat/{answer_id}/regenerate", json=fields)
    assert response.status_code == 202, response.text
    again: dict[str, Any] = response.json()
    return again


async def _stopped(client: httpx.AsyncClient, asked: dict[str, Any]) -> dict[str, Any]:
    answer_id = asked["assistant_message"]["message_id"]
    assert (await client.post(f"/api/chat/{answer_id}/cancel")).status_code == 202
    return await answered(client, asked)


async def test_every_reader_is_given_the_same_thoughts(client: httpx.AsyncClient) -> None:
    asked = await ask(client, "/think 5 3 1")
    assert asked["assistant_message"]["reasoning"] is None
    final = await answered(client, asked)
    assert (final["content"], final["reasoning"]) == ("1 2 3", _THOUGHT)
    assert final["usage"]["completion_tokens"] == 8
    # From the database, and from what is kept of it.
    assert [await _state(client, asked) for _ in range(3)] == [final] * 3
    events = f"/api/sessions/{asked['session_id']}/events"
    polled = (await client.get(f"{events}?transport=poll&last_event_id={asked['position']}")).json()
    reader = ContractClient()
    reader.position = asked["position"]
    for event in polled["events"]:
        reader.apply(event["id"], event["type"], event["data"])
    assert [event["type"] for event in polled["events"]] == [
        "start", *["reasoning"] * 5, *["chunk"] * 3, "message",
    ]  # fmt: skip
    assert reader.messages[final["message_id"]] == final
    whole = (await client.get(f"{events}?transport=poll")).json()["history"]
    assert whole["messages"][-1] == final


async def test_a_client_without_a_state_is_given_all_of_them_each_time(
    client: httpx.AsyncClient,
) -> None:
    asked = await ask(client, "/think 3 2 1")
    final = await answered(client, asked)
    events = f"/api/sessions/{asked['session_id']}/events"
    full = f"{events}?transport=poll&content=full&last_event_id="
    polled = (await client.get(f"{full}{asked['position']}")).json()
    told = [event["data"] for event in polled["events"] if event["type"] == "message"]
    assert [(one.get("chunk"), one["content"], one["reasoning"]) for one in told] == [
        ("", "", "These"),
        ("", "", "These words"),
        ("", "", "These words are"),
        ("1", "1", "These words are"),
        (" 2", "1 2", "These words are"),
        (None, "1 2", "These words are"),
    ]
    # Who comes back in the middle, too: where the text so far cannot be told, all of it is.
    for event, before in zip(polled["events"][1:], polled["events"], strict=False):
        resumed = (await client.get(full + before["id"])).json()
        if resumed["history"] is not None:
            assert resumed["history"]["messages"][-1] == final
        else:
            assert resumed["events"][0] == event


async def test_a_stop_among_the_thoughts_keeps_them(client: httpx.AsyncClient) -> None:
    asked = await _asked_until(client, "/think 5000 5 20", "reasoning")
    final = await _stopped(client, asked)
    assert (final["status"], final["content"]) == ("cancelled", "")
    assert final["reasoning"].startswith("These")
    assert await _state(client, asked) == final
    # There is nothing to go on after.
    again = await _again(client, asked, keep=True)
    assert again["assistant_message"]["reasoning"] is None
    await _stopped(client, again)


async def test_an_answer_that_is_gone_on_with_keeps_its_thoughts(
    client: httpx.AsyncClient,
) -> None:
    asked = await _asked_until(client, "/think 5 200 20", "content")
    cut = await _stopped(client, asked)
    assert (cut["status"], cut["reasoning"]) == ("cancelled", _THOUGHT)
    again = await _again(client, asked, keep=True)
    assert again["assistant_message"]["reasoning"] == _THOUGHT
    final = await answered(client, again)
    assert final["content"] == " ".join(str(number) for number in range(1, 201))
    assert (final["status"], final["reasoning"]) == ("complete", _THOUGHT)


async def test_an_answer_that_is_written_anew_thinks_anew(client: httpx.AsyncClient) -> None:
    asked = await ask(client, "/think 5 3 1")
    await answered(client, asked)
    again = await _again(client, asked)
    assert again["assistant_message"]["reasoning"] is None
    assert (await answered(client, again))["reasoning"] == _THOUGHT


async def test_a_conversation_that_is_taken_back_has_them(client: httpx.AsyncClient) -> None:
    asked = await _asked_until(client, "/think 5000 5 20", "reasoning")
    path = f"/chat/{asked['session_id']}"
    assert (await client.post(f"{path}/delete", data={"x": "y"})).status_code < 400
    assert (await client.post(f"{path}/restore", data={"x": "y"})).status_code < 400
    state = await _state(client, asked)
    assert (state["status"], state["content"]) == ("cancelled", "")
    assert state["reasoning"].startswith("These")


async def test_a_search_does_not_look_into_them(client: httpx.AsyncClient) -> None:
    asked = await ask(client, "/think 30 3 1")
    await answered(client, asked)

    async def found(wanted: str) -> bool:
        page = await client.get("/conversations", params={"q": wanted})
        return f"{asked['session_id']}?around=" in page.text

    assert await found("1 2 3")
    assert not await found("somebody asked")


async def test_nothing_of_them_is_told_in_events_or_logs(
    node: WebNode, client: httpx.AsyncClient
) -> None:
    await answered(client, await ask(client, "/think 5 3 1"))
    assert _THOUGHT not in json.dumps(node.logged, default=str)
    assert _THOUGHT not in (node.settings.data_dir / "worker.log").read_text()
    assert node.complaints() == []
