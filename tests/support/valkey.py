"""Fixtures for tests that need Redis: one real Valkey for the run, emptied before each test."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.streams import keys
from app.streams.connection import connect
from app.streams.embedded import EmbeddedRedis, EmbeddedServerError, find_server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run one server for all tests and give its URL; skip those that need it where it is missing.

    A test that stops, freezes or restarts a server starts one of its own.
    """
    try:
        find_server()
    except EmbeddedServerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"{error} (and CI is set)")
        pytest.skip(str(error))
    url: Future[str] = Future()
    ended = threading.Event()
    # The server dies with the thread that started it, so this one lives as long as the tests; and
    # it has a loop of its own, as theirs end with each of them.
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(tmp_path_factory.mktemp("valkey"), url, ended))
    )
    thread.start()
    try:
        yield url.result()
    finally:
        ended.set()
        thread.join()


@pytest.fixture
async def redis_url(valkey: str) -> AsyncIterator[str]:
    """Give the URL of an empty server; fail a test that leaves a key there that never expires."""
    async with _client(valkey) as redis:
        await redis.flushall()
        yield valkey
        left = await _everlasting(redis)
    if left:
        pytest.fail(f"keys without a lifetime were left: {', '.join(sorted(left))}")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Give a client of an empty server, made as the product makes it."""
    async with _client(redis_url) as redis:
        yield redis


@asynccontextmanager
async def access(redis: Redis, user: str, *rules: str) -> AsyncIterator[None]:
    """Give a user these rights until the end of the block (``ACL SETUSER``)."""
    await acl(redis, "SETUSER", user, *rules)
    try:
        yield
    finally:
        if user == "default":
            await acl(redis, "SETUSER", user, "nopass")
        else:
            await acl(redis, "DELUSER", user)
        await acl(redis, "LOG", "RESET")


async def acl(redis: Redis, *words: str) -> Any:
    """Send an ``ACL`` command."""
    client: Any = redis  # what is untyped in redis-py
    return await client.execute_command("ACL", *words)


async def refusals(redis: Redis, reason: str) -> bool:
    """Say whether the server has refused anybody for that reason (``auth``, ``channel``)."""
    return reason in str(await acl(redis, "LOG"))


async def _serve(directory: Path, url: Future[str], ended: threading.Event) -> None:
    server = EmbeddedRedis(directory)
    try:
        try:
            await server.start()
        except EmbeddedServerError as error:
            url.set_exception(error)
            return
        url.set_result(server.url)
        await asyncio.to_thread(ended.wait)
    finally:
        await server.stop()


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[Redis]:
    redis = connect(url, timeout_seconds=5, max_connections=10)
    try:
        yield redis
    finally:
        await redis.aclose(close_connection_pool=True)


async def _everlasting(redis: Redis) -> set[str]:
    """Name the keys that would stay for ever, but for those that are meant to."""
    found = set()
    for key in await redis.keys():
        name = os.fsdecode(key)
        if name not in keys.PERMANENT and await redis.ttl(key) == -1:
            found.add(name)
    return found
