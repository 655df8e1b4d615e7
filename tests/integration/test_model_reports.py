"""What workers say of their models' servers reaches the web nodes, and does not stay for ever."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from app.composition import utc_now
from app.domain.messages import AnswerError, Message, Role, Status
from app.ending import end
from app.models import watching
from app.models.build import build_models
from app.models.servers import ModelServer
from app.streams import keys
from app.streams.model_reports import FRESH_SECONDS, ModelReports
from app.web.model_choice import ModelChoice
from tests.support.model_answers import answer, asking
from tests.support.scripted_model import DONE, Reply, finish, scripted_model, text
from tests.support.waiting import eventually

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Clock:
    now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.mark.parametrize("age", [0, FRESH_SECONDS - 1])
async def test_each_workers_last_word_counts(redis: Redis, age: int) -> None:
    clock = Clock()
    reports = ModelReports(redis, clock=clock)
    await reports.tell("worker-1", {"a": False})
    await reports.tell("worker-1", {"a": True, "b": True})
    await reports.tell("worker-2", {"a": False})
    clock.now += timedelta(seconds=age)
    assert sorted(await reports.read(), key=len) == [{"a": False}, {"a": True, "b": True}]


async def test_a_worker_that_fell_silent_is_forgotten(redis: Redis) -> None:
    clock = Clock()
    reports = ModelReports(redis, clock=clock)
    await reports.tell("worker-1", {"a": False})
    clock.now += timedelta(seconds=FRESH_SECONDS)
    assert await reports.read() == []
    await reports.tell("worker-2", {"a": True})
    client: Any = redis  # what is untyped in redis-py
    assert await client.hkeys(keys.MODELS) == [b"worker-2"]
    assert 0 < await redis.ttl(keys.MODELS) <= FRESH_SECONDS


async def test_the_word_of_another_version_is_passed_over(redis: Redis) -> None:
    reports = ModelReports(redis, clock=Clock())
    await reports.tell("worker-1", {"a": True})
    client: Any = redis
    await client.hset(keys.MODELS, "worker-2", b'{"new": 1}')
    await client.hset(keys.MODELS, "worker-3", b"{")
    assert await reports.read() == [{"a": True}]


async def test_a_model_goes_on_where_any_worker_says_so_that_spoke_lately(redis: Redis) -> None:
    clock = Clock()
    reports = ModelReports(redis, clock=clock)
    await reports.tell("worker-1", {"a": True, "b": True}, ["a"])
    await reports.tell("worker-2", {"a": True, "b": True}, ["b"])
    client: Any = redis
    before = b'{"at": "2026-01-31T12:00:00Z", "asked": {"c": true}}'
    await client.hset(keys.MODELS, "worker-of-the-version-before", before)
    assert await reports.going_on() == {"a", "b"}
    assert {"c": True} in await reports.read()
    clock.now += timedelta(seconds=FRESH_SECONDS - 1)
    await reports.tell("worker-1", {"a": True, "b": True})
    assert await reports.going_on() == {"b"}
    clock.now += timedelta(seconds=1)
    assert await reports.going_on() == frozenset()


_LLAMA = {"/apply-template": [Reply(200, {"prompt": "<|user|>Count.So far: 1, 2,\n3 and "})]}
_CUT = Message(
    message_id="m",
    session_id="s",
    role=Role.ASSISTANT,
    content="As far",
    status=Status.FAILED,
    is_complete=True,
    attempt=1,
    model="asked",
    created_at="2026-01-31T09:05:00.123Z",
    error=AnswerError("model_cut_off", "The connection to the model server was lost"),
)


@pytest.mark.parametrize("by_path", [_LLAMA, {"/apply-template": [Reply(404, {})]}])
async def test_what_a_worker_found_out_of_a_server_decides_what_a_page_offers(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, by_path: Any
) -> None:
    """Nobody said whether the server goes on: it is asked, once, after it has answered."""
    monkeypatch.setattr(watching, "_REPORT_SECONDS", 0.01)
    reports = ModelReports(redis, clock=utc_now)
    async with scripted_model(text("Yes."), finish(), DONE, by_path=by_path) as server:
        servers = [ModelServer(id="asked", base_url=server.base_url)]
        worker, web = build_models(servers=servers), build_models(servers=servers)
        choice = ModelChoice(web)
        heard: list[frozenset[str]] = []

        def hear(going_on: frozenset[str]) -> None:
            heard.append(going_on)
            choice.learn(going_on)

        reporting = asyncio.ensure_future(watching.report(worker, partial(reports.tell, "w")))
        hearing = asyncio.ensure_future(watching.hear(web, reports.going_on, hear))
        try:
            await eventually(lambda: len(heard) > 2, "some reports")
            assert server.received == [], "nothing is asked before the first question"
            assert not choice.can_go_on(_CUT)
            await answer(worker.get("asked"), asking("?"))
            await eventually(lambda: len(server.received) == 2, "the server is asked")
            if by_path is _LLAMA:
                await eventually(lambda: choice.can_go_on(_CUT), "it is offered to go on")
            else:
                told = len(heard)
                await eventually(lambda: len(heard) > told + 4, "some more reports")
                assert not choice.can_go_on(_CUT)
            await answer(worker.get("asked"), asking("?"))
            told = len(heard)
            await eventually(lambda: len(heard) > told + 4, "some more reports")
            paths = [one.path for one in server.received]
            assert paths.count("/apply-template") == 1, "it has said so"
        finally:
            await end(reporting, hearing)
            await worker.close()
            await web.close()
