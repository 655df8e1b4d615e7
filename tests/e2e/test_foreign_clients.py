"""A stock ``EventSource`` over real harm: it has no word for any of it but «try again»."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.cutter import cutting
from tests.support.event_source import npm_event_source
from tests.support.nodes import ask, messages, running_cluster

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

_RETRY_MS = "50"


def _count(last: int) -> str:
    return " ".join(str(number) for number in range(1, last + 1))


async def test_it_goes_on_where_its_killed_node_left_it(tmp_path: Path) -> None:
    """The address stays, the process behind it does not, as with any supervisor."""
    async with running_cluster(tmp_path, web=1, workers=1, STREAM_RETRY_MS=_RETRY_MS) as cluster:
        (first,) = cluster.web
        asked = await ask(first, "/count 300 20")
        answer_id = asked["assistant_message"]["message_id"]
        url = f"{first.url}/api/sessions/{asked['session_id']}/events"
        async with npm_event_source(url) as source:
            await source.eventually(lambda: source.events.count("chunk") > 20, "twenty chunks")
            first.kill()
            second = await cluster.start_web("web-again", urlsplit(first.url).port)
            text = await source.complete(answer_id)
        assert text == _count(300) == (await messages(second, asked["session_id"]))[-1]["content"]
        assert source.client.histories == ["initial"]
        assert source.connection.count(("open", None)) == 2
        assert source.events.count("bye") == 0


async def test_it_comes_while_redis_is_away_and_stays_until_it_is_back(tmp_path: Path) -> None:
    """An error status would end it for good: it is taken in and told to wait."""
    async with running_cluster(tmp_path, web=1, workers=1, STREAM_RETRY_MS=_RETRY_MS) as cluster:
        (node,) = cluster.web
        asked = await ask(node, "/count 200 20")
        answer_id = asked["assistant_message"]["message_id"]
        async with cutting(node.url) as cutter:
            url = f"{cutter.url}/api/sessions/{asked['session_id']}/events"
            async with npm_event_source(url) as source:
                await source.eventually(lambda: "chunk" in source.events, "a chunk")
                await cluster.redis.stop()
                cutter.cut()
                await source.eventually(
                    lambda: source.connection.count(("open", None)) == 2, "it is back"
                )
                assert not source.client.is_complete(answer_id)
                await cluster.redis.start()
                text = await source.complete(answer_id)
        stored = (await messages(node, asked["session_id"]))[-1]
        assert text == _count(200) == stored["content"]
        assert ("closed", None) not in source.connection
