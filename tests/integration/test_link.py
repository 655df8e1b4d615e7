"""The bare connection: every reply belongs to its command, also after all that can go wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url

from app.streams import scripts
from app.streams.connection import connect, pipe_of
from app.streams.link import Pipe
from tests.support.peers import accepting
from tests.support.valkey import access
from tests.support.waiting import eventually

_KEY = "test:list"


@asynccontextmanager
async def _pipe_to(url: str, *, timeout_seconds: float = 5) -> AsyncIterator[Pipe]:
    pipe = Pipe(dict(parse_url(url)), timeout_seconds=timeout_seconds)
    try:
        yield pipe
    finally:
        pipe.close()


@pytest.fixture
async def pipe(redis_url: str) -> AsyncIterator[Pipe]:
    # Longer than a test lasts: what ends an exchange is not its bound, but for one test of that.
    async with _pipe_to(redis_url, timeout_seconds=300) as pipe:
        yield pipe


@pytest.fixture
async def waiting(pipe: Pipe, redis: Redis) -> AsyncIterator[asyncio.Task[list[Any]]]:
    """Give an exchange whose reply the server keeps back until _KEY is pushed to."""
    task = asyncio.create_task(pipe.exchange([("BLPOP", _KEY, 0)]))
    await _until(redis, blocked=1)
    yield task
    task.cancel()
    await asyncio.wait((task,))


async def _until(redis: Redis, *, blocked: int) -> None:
    async with asyncio.timeout(10):
        while (await redis.info("clients"))["blocked_clients"] != blocked:
            pass


async def _client_id(pipe: Pipe) -> int:
    [found] = await pipe.exchange([("CLIENT", "ID")])
    return int(found)


async def _kill_others(redis: Redis) -> None:
    assert await redis.client_kill_filter(_type="normal", skipme=True) >= 1


async def test_replies_are_in_order_and_errors_stand_in_their_place(pipe: Pipe) -> None:
    replies = await pipe.exchange(
        [
            ("SET", "k", b"\x00\r\n\xff", "PX", 60_000),
            ("GET", "k"),
            ("NOSUCHCOMMAND",),
            ("INCR", "k"),
            ("GET", "missing"),
            ("STRLEN", "k"),
        ]
    )
    assert [replies[at] for at in (0, 1, 4, 5)] == [b"OK", b"\x00\r\n\xff", None, 4]
    assert [type(replies[at]) for at in (2, 3)] == [hiredis.ReplyError] * 2
    assert "NOSUCHCOMMAND" in str(replies[2])
    assert "not an integer" in str(replies[3])


async def test_nothing_to_send_has_no_replies(pipe: Pipe) -> None:
    assert await pipe.exchange([]) == []
    assert await pipe.exchange([("PING",)]) == [b"PONG"]


async def test_exchanges_at_once_get_each_their_own(pipe: Pipe) -> None:
    wanted = [[f"{one}-{n}".encode() for n in range(one % 5 + 1)] for one in range(100)]
    replies = await asyncio.gather(
        *(pipe.exchange([("ECHO", word) for word in words]) for words in wanted)
    )
    assert replies == wanted


async def test_replies_larger_than_one_read_are_whole(pipe: Pipe) -> None:
    words = [bytes([65 + n]) * 500_000 for n in range(4)]
    assert await pipe.exchange([("ECHO", word) for word in words]) == words


async def test_one_connection_is_kept(pipe: Pipe) -> None:
    assert await _client_id(pipe) == await _client_id(pipe)


async def test_a_connection_lost_in_between_is_made_again(pipe: Pipe, redis: Redis) -> None:
    before = await _client_id(pipe)
    await _kill_others(redis)
    link = pipe._link
    assert link is not None
    await eventually(link.lost.is_set, "the loss is noticed")
    assert await _client_id(pipe) != before


async def test_a_connection_lost_while_a_reply_is_awaited_raises_at_once(
    pipe: Pipe, redis: Redis, waiting: asyncio.Task[list[Any]]
) -> None:
    await _kill_others(redis)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(waiting, 10)
    assert await pipe.exchange([("PING",)]) == [b"PONG"]


async def test_a_reply_that_does_not_come_in_time_is_not_taken_for_another(
    redis_url: str, redis: Redis
) -> None:
    async with _pipe_to(redis_url, timeout_seconds=0.2) as pipe:
        before = await _client_id(pipe)
        with pytest.raises(TimeoutError):
            await pipe.exchange([("BLPOP", _KEY, 0)])
        # The server is rid of it too: the late element finds nobody that waits.
        await _until(redis, blocked=0)
        assert await pipe.exchange([("RPUSH", _KEY, "late"), ("DEL", _KEY)]) == [1, 1]
        assert await _client_id(pipe) != before


async def test_a_caller_that_goes_away_leaves_no_reply_behind(
    pipe: Pipe, redis: Redis, waiting: asyncio.Task[list[Any]]
) -> None:
    waiting.cancel()
    assert await pipe.exchange([("PING",)]) == [b"PONG"]
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await _until(redis, blocked=0)


async def test_a_second_exchange_waits_its_turn(
    pipe: Pipe, redis: Redis, waiting: asyncio.Task[list[Any]]
) -> None:
    second = asyncio.create_task(pipe.exchange([("ECHO", "second")]))
    await redis.rpush(_KEY, "first")
    assert await waiting == [[_KEY.encode(), b"first"]]
    assert await second == [b"second"]


async def test_user_password_and_database_of_the_url_are_used(redis_url: str, redis: Redis) -> None:
    url = redis_url.replace("unix://", "unix://ada:p%3Aw@") + "?db=3"
    async with access(redis, "ada", "on", ">p:w", "~*", "+@all"), _pipe_to(url) as pipe:
        replies = await pipe.exchange(
            [("ACL", "WHOAMI"), ("SET", "there", "x", "PX", 60_000), ("EXISTS", "there")]
        )
        assert replies == [b"ada", b"OK", 1]
        assert not await redis.exists("there")


@pytest.mark.parametrize("user", ["nobody", "default"])
async def test_who_is_refused_sends_nothing(redis_url: str, redis: Redis, user: str) -> None:
    url = redis_url.replace("unix://", f"unix://{user}:wrong@")
    async with access(redis, "default", "resetpass", ">right"), _pipe_to(url) as pipe:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError, match="WRONGPASS"):
                await pipe.exchange([("SET", "k", "x")])
    assert not await redis.exists("k")


async def test_a_database_that_is_not_there_is_refused(redis_url: str) -> None:
    async with _pipe_to(f"{redis_url}?db=9999") as pipe:
        with pytest.raises(ConnectionRefusedError):
            await pipe.exchange([("PING",)])


async def test_a_server_that_is_not_there_is_an_error_each_time(tmp_path: Path) -> None:
    async with _pipe_to(f"unix://{tmp_path}/nobody.sock") as pipe:
        for _ in range(2):
            with pytest.raises(OSError, match="No such file"):
                await pipe.exchange([("PING",)])


async def test_a_server_that_speaks_something_else_is_left(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    path = tmp_path / "http.sock"
    async with accepting(greet, path), _pipe_to(f"unix://{path}") as pipe:
        with pytest.raises(ConnectionResetError):
            await pipe.exchange([("PING",)])


async def test_host_and_port_lead_to_the_same_server(redis_url: str) -> None:
    path = parse_url(redis_url)["path"]

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(path)
        try:
            await asyncio.gather(_copy(reader, to_server), _copy(from_server, writer))
        finally:
            to_server.close()

    async with accepting(relay) as port, _pipe_to(f"redis://127.0.0.1:{port}") as pipe:
        assert await pipe.exchange([("ECHO", "over TCP")]) == [b"over TCP"]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while received := await reader.read(65_536):
        writer.write(received)
    writer.close()


async def test_the_pipe_of_a_client_goes_where_the_client_goes(redis_url: str) -> None:
    redis = connect(f"{redis_url}?db=5", timeout_seconds=0.2, max_connections=1)
    pipe = pipe_of(redis)
    try:
        await redis.set("k", "x", px=60_000)
        assert await pipe.exchange([("GET", "k")]) == [b"x"]
        with pytest.raises(TimeoutError):
            await pipe.exchange([("BLPOP", _KEY, 0)])
    finally:
        pipe.close()
        await redis.aclose(close_connection_pool=True)


def _counting(name: str) -> scripts.Script:
    """Make a script that counts its runs, and differs from others by its name."""
    text = f"""
        redis.call('PEXPIRE', KEYS[1], 60000)
        local count = redis.call('INCR', KEYS[1])
        redis.call('PEXPIRE', KEYS[1], 60000)
        return '{name} ' .. count .. ' ' .. ARGV[1]
    """
    return scripts.Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


Run = Callable[[scripts.Script, str], Awaitable[Any]]


@pytest.fixture(params=["run", "run_all"])
def run(request: pytest.FixtureRequest, redis: Redis, pipe: Pipe) -> Run:
    """Run one script by either way of sending them."""

    async def alone(script: scripts.Script, argument: str) -> Any:
        return await scripts.run(redis, script, ["count"], argument)

    async def together(script: scripts.Script, argument: str) -> Any:
        [reply] = await scripts.run_all(pipe, [scripts.Call(script, ["count"], [argument])])
        return reply

    return alone if request.param == "run" else together


async def test_a_script_that_the_server_does_not_know_runs_once_all_the_same(
    run: Run, redis: Redis
) -> None:
    script = _counting("a")
    for number in (1, 3):
        await redis.script_flush()
        assert await run(script, "x") == b"a %d x" % number
        assert await run(script, "y") == b"a %d y" % (number + 1)


async def test_unknown_scripts_among_known_ones_keep_their_places(pipe: Pipe, redis: Redis) -> None:
    known, unknown, broken = _counting("known"), _counting("unknown"), _counting("broken")
    await redis.script_flush()
    for script in (known, broken):
        await redis.script_load(script.text)
    await redis.set("text", "no number", px=60_000)
    replies = await scripts.run_all(
        pipe,
        [
            scripts.Call(unknown, ["a"], ["1"]),
            scripts.Call(known, ["b"], ["2"]),
            scripts.Call(unknown, ["c"], ["3"]),
            scripts.Call(broken, ["text"], ["4"]),
            scripts.Call(known, ["a"], ["5"]),
        ],
    )
    assert replies[:3] == [b"unknown 2 1", b"known 1 2", b"unknown 1 3"]
    assert isinstance(replies[3], hiredis.ReplyError)
    # It was known, so it ran at first, before the one that had to be sent again.
    assert replies[4] == b"known 1 5"
