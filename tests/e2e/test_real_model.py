"""The main job with a real language model behind the OpenAI-compatible interface."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.contract_client import ContractClient
from tests.support.llama import running_llama
from tests.support.nodes import ask, follow_to_the_end, messages, read_stream, running_cluster

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

            again = await ask(second, "Tell me a very long story.", session_id=session_id)
            answer_id = again["assistant_message"]["message_id"]
            await read_stream(first, session_id, client, events=8)
            async with httpx.AsyncClient(base_url=first.url) as http:
                stopped = await http.post(f"/api/chat/{answer_id}/cancel")
            assert stopped.status_code == 202, stopped.text
            await follow_to_the_end([second], session_id, client, answer_id)
            stored = (await messages(first, session_id))[-1]
            assert stored["status"] == "cancelled"
            assert stored["content"] == client.text(answer_id) != ""
