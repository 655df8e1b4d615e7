"""What is one's own can be taken along and deleted: over HTTP, and to the last trace."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.chat import exporting
from app.chat.exporting import Exporting
from app.composition import utc_now
from app.db.engine import Database
from app.domain.caller import Caller
from tests.support.conversations import Talker
from tests.support.waiting import eventually
from tests.support.web import SECRET, WebNode, answered, ask, following, serving, token, until

_PASSWORD = "correct horse battery"
_PAGE = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"}
_PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "public_origin": "http://127.0.0.1",
    "sign_up": "open",
    "sign_in_failures_per_account": 0,
    "sign_in_failures_per_address": 0,
}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[WebNode]:
    async with serving(tmp_path, **_PRODUCTION) as node:
        yield node
        assert node.complaints() == []


async def _sign_up(client: httpx.AsyncClient, name: str = "lovelace") -> dict[str, str]:
    """Make an account in this client; give the field that its forms need."""
    form = {"username": name, "password": _PASSWORD}
    answer = await client.post("/sign-up", data=form, headers=_PAGE)
    assert answer.status_code == 303, answer.text
    client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
    return {"sure": "yes", "current_password": _PASSWORD}


def _lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["cache-control"] == "no-store"
    return [json.loads(line) for line in answer.text.splitlines()]


class TestExport:
    async def test_it_has_all_that_is_ones_own_and_nothing_else(
        self, node: WebNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exporting, "_SESSIONS", 1)
        monkeypatch.setattr(exporting, "_MESSAGES", 1)
        async with node.client_of("ada") as ada, node.client_of("bob") as bob:
            await answered(bob, await ask(bob, "/echo bob's"))
            first = await ask(ada, "/echo one")
            await answered(ada, first)
            await answered(ada, await ask(ada, "/echo two", session_id=first["session_id"]))
            gone = await ask(ada, "/echo gone")
            await ada.delete(f"/api/sessions/{gone['session_id']}")
            await ada.post("/api/sessions", json={"session_id": "empty", "title": "Nothing"})
            seen = {
                path: (await ada.get(f"/api/sessions/{path}")).json()
                for path in (first["session_id"], "empty", f"{first['session_id']}/messages")
            }

            answer = await ada.get("/api/account/export")

            name = answer.headers["content-disposition"]
            assert name.startswith('attachment; filename="throughline-ada-20')
            account, *said, end = _lines(answer)
            assert (account["type"], account["format"], account["user_id"]) == ("account", 1, "ada")
            assert end == {"sessions": 2, "messages": 4, "type": "end"}
            by_type: dict[str, list[Any]] = {"session": [], "message": []}
            for line in said:
                by_type[line.pop("type")].append(line)
            assert by_type["session"] == [seen[first["session_id"]], seen["empty"]]
            assert by_type["message"] == seen[f"{first['session_id']}/messages"]["items"]
            head = await ada.head("/api/account/export")
            assert head.headers["content-disposition"] == name
            assert head.content == b""

    async def test_a_browser_downloads_it_from_the_account_page(self, node: WebNode) -> None:
        async with node.client() as client:
            await _sign_up(client, 'né "x"\\..')
            page = await client.get("/account", headers=_PAGE)
            assert 'href="/account/export"' in page.text
            assert 'href="/account/delete"' in page.text
            answer = await client.get("/account/export", headers=_PAGE)
            assert [line["type"] for line in _lines(answer)] == ["account", "end"]
            assert 'filename="throughline-n-x-20' in answer.headers["content-disposition"]

    async def test_who_reads_slowly_holds_no_connection(self, database_url: str) -> None:
        """The pool has one; it is free between any two pieces."""
        database = Database(database_url, pool_size=1, timeout_seconds=0.5)
        try:
            await (await Talker(database).arrive()).exchange("One?", "1")
            pieces = Exporting(database, utc_now).lines(Caller("ada", "ada"))
            async for _ in pieces:
                await database.ping()
        finally:
            await database.close()


class TestDeletion:
    async def test_it_wants_the_password_the_token_of_the_page_and_a_yes(
        self, node: WebNode
    ) -> None:
        async with node.client() as client:
            form = await _sign_up(client)
            assert "Current password" in (await client.get("/account/delete", headers=_PAGE)).text
            for status, changed in (
                (401, {"current_password": "not this one"}),
                (400, {"sure": "no"}),
            ):
                answer = await client.post("/account/delete", data=form | changed, headers=_PAGE)
                assert answer.status_code == status
                assert "I know that this cannot be taken back" in answer.text
            del client.headers["X-CSRFToken"]
            answer = await client.post("/account/delete", data=form, headers=_PAGE)
            assert answer.status_code == 403
            assert (await client.get("/account", headers=_PAGE)).status_code == 200
        async with node.client_of("ada") as program:
            answer = await program.post("/account/delete", data=form)
            assert answer.status_code == 403, "a token alone deletes nothing"

    async def test_no_trace_of_it_is_left(self, node: WebNode) -> None:
        async with node.client() as client:
            form = await _sign_up(client)
            first = await ask(client, "/echo xyzzyplugh")
            await answered(client, first)
            await client.get(f"/api/sessions/{first['session_id']}/messages")
            running = await ask(client, "/count 500 20 xyzzyplugh")
            user_id = _one(node, "SELECT user_id FROM chat_sessions")
            assert "xyzzyplugh" in await _redis(node)
            path = f"/api/sessions/{running['session_id']}/events"
            async with (
                node.client_of(user_id) as program,
                following(program, path) as events,
            ):
                await until(events, "history")
                answer = await client.post("/account/delete", data=form, headers=_PAGE)
                assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
                ended = await until(events, "bye")
                assert json.loads(ended[-1].data)["reconnect"] is False
                assert (await program.get("/api/sessions")).status_code == 401
            assert "throughline" not in client.cookies
            again = {"username": "lovelace", "password": _PASSWORD}
            assert (await client.post("/sign-in", data=again, headers=_PAGE)).status_code == 401
        # Another issuer's clock may be ahead: the token is new, the user is still not.
        async with node.client_of(user_id, iat=None) as late:
            assert (await late.post("/api/chat", json={"message": "me again"})).status_code == 401
        await eventually(
            lambda: (
                _one(node, "SELECT count(*) FROM chat_sessions WHERE purge_at IS NOT NULL") == 0
            ),
            "a worker has purged all of it",
            seconds=30,
        )
        assert "xyzzyplugh" not in await _redis(node)
        # SQLite's journal of pages is reused from its beginning; here that is not waited for.
        await eventually(
            lambda: _one(node, "PRAGMA wal_checkpoint(TRUNCATE)") == 0, "nobody reads", seconds=30
        )
        for file in node.database.parent.glob("throughline.db*"):
            assert b"xyzzyplugh" not in file.read_bytes(), file
            assert b"lovelace" not in file.read_bytes(), file
        async with node.client() as client:
            await _sign_up(client)

    async def test_the_operator_deletes_one_by_its_name(self, node: WebNode) -> None:
        async with node.client() as client:
            await _sign_up(client)
            await answered(client, await ask(client, "/echo xyzzyplugh"))
            said = await _throughline(node, "user", "delete", "lovelace", "--yes")
            assert said.startswith("lovelace is deleted")
            assert (await _throughline(node, "user", "list")).strip() == "there is no account yet"
            await eventually(lambda: node.rows()["messages"] == 0, "erased", seconds=30)
            # Told through Redis, by a process that has ended since.
            async with asyncio.timeout(30):
                while (await client.get("/api/sessions")).status_code != 401:
                    pass

    async def test_a_new_token_of_another_issuer_begins_nothing(self, tmp_path: Path) -> None:
        """Such a one was made after the revocation; the database's word counts."""
        async with serving(tmp_path, worker=False, **_PRODUCTION) as node:
            async with node.client() as client:
                form = await _sign_up(client)
                user_id = _one(node, "SELECT id FROM users")
                await client.post("/account/delete", data=form, headers=_PAGE)
            later = {"Authorization": f"Bearer {token(user_id, iat=None)}"}
            node.node.application.state["parts"].gatekeeper._is_revoked = lambda _: False
            async with node.client(**later) as program:
                answer = await program.post("/api/sessions", json={})
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
                assert (await program.post("/api/chat", json={"message": "hm"})).status_code == 403
                assert (await program.get("/api/sessions")).json()["items"] == []


async def _throughline(node: WebNode, *words: str) -> str:
    """Run the command on this installation; give what it printed."""
    environment = os.environ | {
        "ENVIRONMENT": "production",
        "JWT_SECRET": SECRET,
        "PUBLIC_ORIGIN": "http://127.0.0.1",
        "DATA_DIR": str(node.settings.data_dir),
        "REDIS_URL": node.settings.redis_address,
        "DATABASE_URL": node.settings.database_address,
    }
    command = Path(sys.executable).with_name("throughline")
    running = await asyncio.create_subprocess_exec(
        command, *words, env=environment, stdout=PIPE, stderr=PIPE
    )
    out, errors = await running.communicate()
    assert running.returncode == 0, errors.decode()
    return out.decode()


def _one(node: WebNode, statement: str) -> Any:
    with closing(connect(node.database)) as database:
        return database.execute(statement).fetchone()[0]


async def _redis(node: WebNode) -> str:
    """Give all that Redis has, but for the names of keys."""
    redis = Redis.from_url(node.settings.redis_address)
    client: Any = redis  # what is untyped in redis-py
    read: dict[bytes, Any] = {
        b"string": redis.get,
        b"stream": redis.xrange,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"hash": redis.hgetall,
        b"set": redis.smembers,
        b"zset": lambda key: redis.zrange(key, 0, -1),
    }
    try:
        return " ".join(
            [str(await read[await client.type(key)](key)) async for key in redis.scan_iter("*")]
        )
    finally:
        await redis.aclose()
