"""The main job with a real language model behind the OpenAI-compatible interface."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httpx
import psutil
import pytest

from tests.support.contract_client import ContractClient
from tests.support.llama import missing_parts, running_llama
from tests.support.nodes import (
    Node,
    ask,
    follow_to_the_end,
    free_port,
    messages,
    read_stream,
    running_cluster,
)

_STORIES = 5
pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(180)]


async def test_a_real_model_answers_while_its_reader_comes_and_goes(tmp_path: Path) -> None:
    """Asked, cut after three events, resumed, stored: and a second question stopped."""
    with running_llama() as base_url:
        async with running_cluster(
            tmp_path, web=2, workers=1, MODEL_BASE_URL=base_url, MODEL_NAME="smollm2"
        ) as cluster:
            first, second = cluster.web
            asked = await ask(first, "What is the capital of France? Answer in one sentence.")
            session_id = asked["session_id"]
            answer_id = asked["assistant_message"]["message_id"]
            assert asked["assistant_message"]["model"] == "smollm2"
            client = ContractClient()
            client.position = asked["position"]
            await read_stream(first, session_id, client, events=3)
            await follow_to_the_end([second], session_id, client, answer_id)
            stored = (await messages(first, session_id))[-1]
            assert stored["status"] == "complete"
            assert stored["content"] == client.text(answer_id) != ""
            assert stored["usage"]["completion_tokens"] > 0
            assert client.histories == []

            # A model that says little may be done before it can be stopped.
            for _ in range(_STORIES):
                again = await ask(second, "Tell me a very long story.", session_id=session_id)
                answer_id = again["assistant_message"]["message_id"]
                await read_stream(first, session_id, client, events=8)
                async with httpx.AsyncClient(base_url=first.url) as http:
                    stopped = await http.post(f"/api/chat/{answer_id}/cancel")
                if stopped.status_code == HTTPStatus.ACCEPTED:
                    break
                await follow_to_the_end([second], session_id, client, answer_id)
            else:
                pytest.fail("no story was long enough to be stopped")
            await follow_to_the_end([second], session_id, client, answer_id)
            stored = (await messages(first, session_id))[-1]
            assert stored["status"] == "cancelled"
            assert stored["content"] == client.text(answer_id) != ""


async def test_a_workers_death_leaves_no_seam_in_a_real_answer(tmp_path: Path) -> None:
    """The next worker asks whether the server can go on, and it does, from the last character."""
    with running_llama() as base_url:
        async with running_cluster(
            tmp_path, web=1, workers=1, MODEL_BASE_URL=base_url, MODEL_NAME="smollm2"
        ) as cluster:
            (web,) = cluster.web
            asked = await ask(web, "Write a story about a dog and a fox.")
            session_id = asked["session_id"]
            answer_id = asked["assistant_message"]["message_id"]
            client = ContractClient()
            client.position = asked["position"]
            while len(client.text(answer_id).split()) < 5:
                await read_stream(web, session_id, client, events=1)
            cluster.workers[0].kill()
            shown = client.text(answer_id)
            cluster.start_worker("worker-2")
            await follow_to_the_end([web], session_id, client, answer_id)

            stored = (await messages(web, session_id))[-1]
            assert stored["status"] == "complete"
            assert stored["content"] == client.text(answer_id)
            assert [start["attempt"] for start in client.starts] == [1, 2]
            kept = client.starts[1]["content"]
            assert kept.startswith(shown), "nothing that was shown is taken back"
            assert stored["content"].startswith(kept)
            assert len(stored["content"]) > len(kept), "it went on"

            # Asked once more, undisturbed, it says the same: the joint neither drops nor repeats.
            again = await ask(web, "Write a story about a dog and a fox.")
            answer_id = again["assistant_message"]["message_id"]
            client = ContractClient()
            client.position = again["position"]
            await follow_to_the_end([web], again["session_id"], client, answer_id)
            joint = len(kept) + 12
            assert client.text(answer_id)[:joint] == stored["content"][:joint]


async def test_one_command_starts_a_real_model(tmp_path: Path) -> None:
    """``throughline up --model local``: asked, answered, and nothing left running."""
    if missing := missing_parts():
        pytest.skip(missing)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app",
        *("up", "--model", "local", "--port", str(port), "--data", str(tmp_path / "data")),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        said = ""
        async with asyncio.timeout(120):
            while "Ctrl-C stops it" not in said:
                line = (await process.stdout.readline()).decode()
                assert line, f"it ended: {said}"
                said += line
        assert "local model: SmolLM2-135M-Instruct" in said
        assert "98 MB, Apache-2.0" in said
        children = psutil.Process(process.pid).children(recursive=True)
        web = Node("web", cast("subprocess.Popen[bytes]", process), f"http://127.0.0.1:{port}")
        async with httpx.AsyncClient(base_url=web.url) as http:
            models = (await http.get("/api/models")).json()
        assert models["default"] == "local"
        asked = await ask(web, "What is the capital of France? Answer in one sentence.")
        answer_id = asked["assistant_message"]["message_id"]
        client = ContractClient()
        client.position = asked["position"]
        await read_stream(web, asked["session_id"], client, until_complete=answer_id)
        stored = (await messages(web, asked["session_id"]))[-1]
        assert stored["status"] == "complete", stored
        assert stored["content"] == client.text(answer_id) != ""
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            status = await process.wait()
    assert status == 0
    assert not [one for one in children if one.is_running() and one.status() != "zombie"]
