"""Each way in which a model server fails, as a person and a client are told of it.

But for silence, which takes its time: ``tests/integration/test_model_faults.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import httpx
import pytest
import pytest_asyncio

from tests.support.contract_client import ContractClient
from tests.support.nodes import Node, ask, follow_to_the_end, messages, running_cluster
from tests.support.scripted_model import (
    DONE,
    Cut,
    Reply,
    ScriptedModel,
    Step,
    finish,
    refusal,
    scripted_model,
    text,
)
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.slow,
    pytest.mark.timeout(120),
]

_PAGE: Final = {"Accept": "text/html"}
_SO_FAR: Final = "As far as this"


class _Fault(NamedTuple):
    """What the server does, and what becomes of the answer."""

    steps: tuple[Step, ...]
    code: str
    content: str = ""
    status: str = "failed"


_BEGUN: Final = text(_SO_FAR)
_FAULTS: Final = {
    "key-refused": _Fault((Reply(401, {}),), "model_unauthorized"),
    "not-there": _Fault((Reply(404, {}),), "model_not_found"),
    "full": _Fault((Reply(429, {}, ("Retry-After: 3600",)),), "model_rate_limited"),
    "broken": _Fault((Reply(500, {}),), "model_error"),
    "dropped": _Fault((Cut(),), "model_unreachable"),
    "empty": _Fault((finish(), DONE), "empty_answer"),
    "cut": _Fault((_BEGUN, Cut()), "model_cut_off", _SO_FAR),
    "unended": _Fault((_BEGUN,), "model_unended", _SO_FAR),
    "malformed": _Fault((_BEGUN, b"data: {oops\n\n"), "model_unreadable", _SO_FAR),
    "declines": _Fault((refusal(_SO_FAR), finish(), DONE), "model_refused", _SO_FAR),
    "long": _Fault((_BEGUN, finish("length"), DONE), "length_stopped", _SO_FAR, "complete"),
}
_SHORT: Final = (_BEGUN, finish("length"), DONE)
_SHOWS_IT: Final = {"/apply-template": [Reply(200, {"prompt": "<|user|>So far: 1, 2,\n3 and "})]}


async def _ended(node: Node, model: str) -> tuple[dict[str, Any], str]:
    """Ask a model; give its answer's end and the page that shows it."""
    asked = await ask(node, "What now?", model=model)
    client = ContractClient()
    client.position = asked["position"]
    answer_id = asked["assistant_message"]["message_id"]
    await follow_to_the_end([node], asked["session_id"], client, answer_id)
    stored = (await messages(node, asked["session_id"]))[-1]
    assert stored["content"] == client.text(answer_id)
    return stored, await _page(node, asked["session_id"])


async def _page(node: Node, session_id: str) -> str:
    async with httpx.AsyncClient(base_url=node.url, timeout=10, headers=_PAGE) as http:
        return html.unescape((await http.get(f"/chat/{session_id}")).text)


class _Stage(NamedTuple):
    """A web node and a worker, and servers that fail in each way."""

    node: Node
    able: ScriptedModel
    """Cut off twice, and then well again."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_Stage]:
    cut = (_BEGUN, Cut())
    rest = (text(" it goes"), text(" on."), finish(), DONE)
    async with contextlib.AsyncExitStack() as stack:

        async def serve(*steps: Step, **others: Any) -> ScriptedModel:
            return await stack.enter_async_context(scripted_model(*steps, **others))

        servers = {name: await serve(*fault.steps) for name, fault in _FAULTS.items()}
        servers["able"] = await serve(*rest, first=[cut, cut])
        unsaid = {
            "llama": await serve(*_SHORT, by_path=_SHOWS_IT),
            "other": await serve(*_SHORT),
        }
        listed = [
            {"id": name, "base_url": server.base_url, "continues": True}
            for name, server in servers.items()
        ] + [{"id": name, "base_url": server.base_url} for name, server in unsaid.items()]
        cluster = await stack.enter_async_context(
            running_cluster(
                tmp_path_factory.mktemp("cluster"),
                web=1,
                workers=1,
                MODELS=json.dumps(listed),
                MODEL_RETRIES="0",
            )
        )
        yield _Stage(cluster.web[0], servers["able"])


async def test_each_fault_has_a_code_keeps_the_text_and_offers_what_can_be_done(
    stage: _Stage,
) -> None:
    """Try again always; go on where there is a text and the model is known to be able to."""
    ended = await asyncio.gather(*(_ended(stage.node, name) for name in _FAULTS))
    for (name, fault), (stored, shown) in zip(_FAULTS.items(), ended, strict=True):
        told = (stored["status"], stored["error"]["code"], stored["content"])
        assert told == (fault.status, fault.code, fault.content), name
        assert fault.content in shown, name
        if fault.status == "failed":
            assert f"{stored['error']['detail']} ({fault.code})" in shown, name
            assert "<span>Try again</span>" in shown, name
        else:
            assert "limit on length" in shown, name
            assert "<span>Regenerate</span>" in shown, name
        assert ("<span>Go on</span>" in shown) is bool(fault.content), name


async def test_a_server_that_shows_that_it_goes_on_needs_no_setting_for_it(stage: _Stage) -> None:
    """Its worker finds out, tells, and web nodes then offer it: for llama.cpp's, and no other."""
    (by_other, _), (by_llama, _) = [await _ended(stage.node, name) for name in ("other", "llama")]
    address = f"{stage.node.url}/chat/{by_llama['session_id']}"
    await eventually(
        lambda: "<span>Go on</span>" in httpx.get(address, headers=_PAGE, timeout=10).text,
        "it is offered to go on",
        seconds=60,
    )
    assert "<span>Go on</span>" not in await _page(stage.node, by_other["session_id"])


async def test_an_answer_whose_connection_was_lost_is_gone_on_with(stage: _Stage) -> None:
    """In the page and in the API, from its last character."""
    lost = [(await _ended(stage.node, "able"))[0] for _ in range(2)]
    assert [one["error"]["code"] for one in lost] == ["model_cut_off"] * 2
    async with httpx.AsyncClient(base_url=stage.node.url, timeout=10) as http:
        by_api = await http.post(
            f"/api/chat/{lost[0]['message_id']}/regenerate", json={"keep": True}
        )
        assert by_api.status_code == 202, by_api.text
        by_page = await http.post(
            f"/chat/messages/{lost[1]['message_id']}/regenerate", data={"keep": "1"}
        )
        assert by_page.status_code == 303, by_page.text
    for before in lost:
        await _goes_on(stage, before)
    begun = {"role": "assistant", "content": _SO_FAR}
    assert [one.body["messages"][-1] for one in stage.able.received].count(begun) == 2


async def _goes_on(stage: _Stage, before: dict[str, Any]) -> None:
    client = ContractClient()
    await follow_to_the_end([stage.node], before["session_id"], client, before["message_id"])
    after = (await messages(stage.node, before["session_id"]))[-1]
    assert (after["status"], after["error"]) == ("complete", None)
    assert after["content"] == client.text(before["message_id"]) == f"{_SO_FAR} it goes on."
    assert "<span>Go on</span>" not in await _page(stage.node, before["session_id"])
