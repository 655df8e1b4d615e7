"""Models on the pages without a browser: choose one, go on with what ended too early."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.support.web import WebNode, answered, ask, following, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_HTMX = {"HX-Request": "true", "Accept": "text/html"}
_MODELS = json.dumps([{"id": "other", "base_url": "http://127.0.0.1:9/v1", "name": "<Other>"}])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebNode]:
    async with serving(tmp_path_factory.mktemp("node"), models=_MODELS) as node:
        yield node


@pytest_asyncio.fixture(loop_scope="module")
async def client(node: WebNode) -> AsyncIterator[httpx.AsyncClient]:
    """Give a browser of a user of this test alone."""
    async with node.client_of(f"user-{uuid.uuid4()}") as client:
        client.headers["Accept"] = "text/html,application/xhtml+xml,*/*;q=0.8"
        yield client


def _chosen(shown: str) -> list[str]:
    return re.findall(r'<option value="([^"]+)" selected>', shown)


def _form(session_id: str, **fields: str) -> dict[str, str]:
    key = uuid.uuid4().hex
    return {"message": "/echo x", "session_id": session_id, "client_message_id": key, **fields}


async def test_a_model_is_chosen_by_name_and_stays_the_conversations(
    client: httpx.AsyncClient,
) -> None:
    home = (await client.get("/")).text
    assert re.findall(r"<option[^>]*>([^<]+)</option>", home) == ["&lt;Other&gt;", "Demo"]
    assert _chosen(home) == ["other"]
    session_id = str(uuid.uuid4())
    done = await client.post("/chat", data=_form(session_id, model="demo"))
    assert done.status_code == 303
    path = done.headers["location"]
    assert _chosen((await client.get(path)).text) == ["demo"]
    page = (await client.get(f"/api/sessions/{session_id}/messages")).json()
    assert page["items"][1]["model"] == "demo"
    asked = {"session_id": session_id, "assistant_message": page["items"][1]}
    await answered(client, asked)
    assert '<p class="by">Demo</p>' in (await client.get(path)).text
    # A form without the field, of a page that was loaded before there was a choice.
    done = await client.post(f"{path}/messages", data=_form(session_id))
    assert done.status_code == 303
    shown = (await client.get(path)).text
    assert _chosen(shown) == ["other"]


async def test_a_model_that_is_not_there_is_a_line_over_the_question(
    node: WebNode, client: httpx.AsyncClient
) -> None:
    before = node.rows()["messages"]
    session_id = str(uuid.uuid4())
    fields = _form(session_id, model="gone", message="/echo kept")
    refused = await client.post("/chat", data=fields)
    assert refused.status_code == 400
    assert "There is no such model; there are demo, other" in refused.text
    assert "\n/echo kept</textarea>" in refused.text
    assert _chosen(refused.text) == ["other"]
    await client.post("/api/sessions", json={"session_id": session_id})
    for headers in ({}, _HTMX):
        refused = await client.post(f"/chat/{session_id}/messages", data=fields, headers=headers)
        assert refused.status_code == 400
        assert "<p>There is no such model; there are demo, other</p>" in refused.text
    assert node.rows()["messages"] == before
    # Refused for another reason, the form comes back with the choice that was made.
    refused = await client.post("/chat", data=_form(session_id, model="demo", message=" "))
    assert (refused.status_code, _chosen(refused.text)) == (400, ["demo"])


async def test_what_was_stopped_or_failed_is_gone_on_with_from_where_it_is(
    client: httpx.AsyncClient,
) -> None:
    asked = await ask(client, "/count 120 10", model="demo")
    session_id = asked["session_id"]
    answer_id = asked["assistant_message"]["message_id"]
    async with following(client, f"/api/sessions/{session_id}/events") as events:
        await until(events, "chunk")
    await client.post(f"/chat/messages/{answer_id}/stop", data={"session_id": session_id})
    stopped = await answered(client, asked)
    assert stopped["status"] == "cancelled"
    shown = (await client.get(f"/chat/{session_id}")).text
    assert "<span>Go on</span>" in shown
    assert "<span>Try again</span>" in shown
    path = f"/chat/messages/{answer_id}/regenerate"
    assert f'action="{path}"' in shown
    part = await client.post(path, data={"keep": "1"}, headers=_HTMX)
    assert part.status_code == 200
    # What is there already stays on the page while the rest is awaited.
    assert f"<p>{stopped['content'].strip()}</p>" in part.text
    assert "<span>Go on</span>" not in part.text
    assert f"/chat/messages/{answer_id}/stop" in part.text
    final = await answered(client, asked)
    assert final["content"] == " ".join(str(number) for number in range(1, 121))
    assert final["status"] == "complete"
    assert "<span>Go on</span>" not in (await client.get(f"/chat/{session_id}")).text

    failed = await ask(client, "/fail 3", model="demo")
    failed_id = failed["assistant_message"]["message_id"]
    before = await answered(client, failed)
    done = await client.post(f"/chat/messages/{failed_id}/regenerate", data={"keep": "1"})
    assert (done.status_code, done.headers["location"]) == (303, f"/chat/{failed['session_id']}")
    after = await answered(client, failed)
    assert (after["content"], after["status"]) == (before["content"], "failed")
    assert after["attempt"] > before["attempt"]


async def test_where_nothing_was_said_there_is_nothing_to_go_on_with(
    client: httpx.AsyncClient,
) -> None:
    asked = await ask(client, "/fail 0", model="demo")
    await answered(client, asked)
    shown = (await client.get(f"/chat/{asked['session_id']}")).text
    assert "<span>Try again</span>" in shown
    assert "<span>Go on</span>" not in shown


async def test_with_one_model_there_is_no_word_of_models(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with serving(tmp_path_factory.mktemp("alone")) as node, node.client() as client:
        asked = await ask(client, "/echo x")
        await answered(client, asked)
        for path in ("/", f"/chat/{asked['session_id']}"):
            shown = (await client.get(path, headers={"Accept": "text/html"})).text
            assert 'id="composer"' in shown
            assert "<select" not in shown
            assert 'class="by"' not in shown
