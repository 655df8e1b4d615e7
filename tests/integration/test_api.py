"""REST as a client sees it, over a real socket."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.support.web import WebNode, answered, ask, following, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebNode]:
    async with serving(
        tmp_path_factory.mktemp("node"), stream_heartbeat_seconds=0.2, connections_per_user=20
    ) as node:
        yield node


@pytest_asyncio.fixture(loop_scope="module")
async def client(node: WebNode) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that acts as a user of this test alone."""
    async with node.client_of(f"user-{uuid.uuid4()}") as client:
        yield client


class TestAsking:
    async def test_a_question_is_accepted_with_both_messages_and_a_position(
        self, client: httpx.AsyncClient
    ) -> None:
        answer = await client.post("/api/chat", json={"message": "  /echo hello  "})
        assert answer.status_code == 202
        asked = answer.json()
        assert asked.keys() == {"session_id", "user_message", "assistant_message", "position"}
        question, awaited = asked["user_message"], asked["assistant_message"]
        assert (question["role"], question["content"]) == ("user", "/echo hello")
        assert (awaited["role"], awaited["status"]) == ("assistant", "queued")
        assert awaited["is_complete"] is False
        final = await answered(client, asked)
        assert (final["content"], final["status"]) == ("hello", "complete")
        assert final.keys() == {
            "message_id",
            "session_id",
            "role",
            "content",
            "status",
            "is_complete",
            "attempt",
            "model",
            "created_at",
            "completed_at",
            "error",
            "usage",
            "reasoning",
        }

    async def test_a_chosen_session_id_is_created_for_the_caller(
        self, client: httpx.AsyncClient
    ) -> None:
        chosen = f"chosen-{uuid.uuid4()}"
        asked = await ask(client, "/echo x", session_id=chosen)
        assert asked["session_id"] == chosen
        assert (await client.get(f"/api/sessions/{chosen}")).json()["title"] == "/echo x"

    @pytest.mark.parametrize("where", ["body", "header"])
    async def test_the_same_key_gives_the_first_calls_messages(
        self, client: httpx.AsyncClient, where: str
    ) -> None:
        session_id, key = str(uuid.uuid4()), str(uuid.uuid4())
        body = {"message": "/echo once", "session_id": session_id}
        headers = {}
        if where == "body":
            body["client_message_id"] = key
        else:
            headers["Idempotency-Key"] = key
        first = await client.post("/api/chat", json=body, headers=headers)
        again = await client.post("/api/chat", json=body, headers=headers)
        assert (first.status_code, again.status_code) == (202, 200)
        for message in ("user_message", "assistant_message"):
            assert again.json()[message]["message_id"] == first.json()[message]["message_id"]
        await answered(client, first.json())
        messages = (await client.get(f"/api/sessions/{session_id}/messages")).json()["items"]
        assert [message["role"] for message in messages] == ["user", "assistant"]

    async def test_the_same_key_in_header_and_body_is_one_key(
        self, client: httpx.AsyncClient
    ) -> None:
        answer = await client.post(
            "/api/chat",
            json={"message": "/echo x", "client_message_id": "k"},
            headers={"Idempotency-Key": "k"},
        )
        assert answer.status_code == 202

    async def test_a_session_that_is_being_answered_names_the_answer(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/count 200 50")
        again = await client.post(
            "/api/chat", json={"message": "me too", "session_id": asked["session_id"]}
        )
        assert again.status_code == 409
        assert again.json()["code"] == "generation_in_progress"
        assert again.json()["message_id"] == asked["assistant_message"]["message_id"]
        await client.post(f"/api/chat/{asked['assistant_message']['message_id']}/cancel")

    async def test_stopping_keeps_the_text_so_far_and_may_be_repeated(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/count 500 20")
        message_id = asked["assistant_message"]["message_id"]
        path = f"/api/sessions/{asked['session_id']}/events"
        async with following(client, path) as events:
            await until(events, "chunk")
        stopped = await client.post(f"/api/chat/{message_id}/cancel")
        assert stopped.status_code == 202
        assert stopped.json()["message_id"] == message_id
        final = await answered(client, asked)
        assert final["status"] == "cancelled"
        assert final["content"].startswith("1")
        again = await client.post(f"/api/chat/{message_id}/cancel")
        assert (again.status_code, again.json()["status"]) == (200, "cancelled")

    async def test_regenerating_takes_the_place_of_the_latest_answer(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/echo again")
        message_id = asked["assistant_message"]["message_id"]
        await answered(client, asked)
        regenerated = await client.post(f"/api/chat/{message_id}/regenerate")
        assert regenerated.status_code == 202
        assert regenerated.json()["assistant_message"]["message_id"] == message_id
        assert (await answered(client, regenerated.json()))["content"] == "again"
        await answered(client, await ask(client, "/echo b", session_id=asked["session_id"]))
        refused = await client.post(f"/api/chat/{message_id}/regenerate")
        assert (refused.status_code, refused.json()["code"]) == (409, "not_regenerable")

    async def test_the_models_are_listed_with_the_default(self, client: httpx.AsyncClient) -> None:
        listed = (await client.get("/api/models")).json()
        assert listed["default"] in {model["id"] for model in listed["items"]}

    async def test_five_thousand_characters_of_four_bytes_are_accepted(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "😀" * 5000)
        assert asked["user_message"]["content"] == "😀" * 5000


class TestSessions:
    async def test_created_read_renamed_listed_and_deleted(self, client: httpx.AsyncClient) -> None:
        made = await client.post("/api/sessions", json={"title": " Mine "})
        assert made.status_code == 201
        session = made.json()
        assert session.keys() == {"session_id", "title", "created_at", "updated_at"}
        path = f"/api/sessions/{session['session_id']}"
        assert made.headers["location"] == path
        assert (await client.get(path)).json() == session
        assert (await client.patch(path, json={"title": "Ours"})).json()["title"] == "Ours"
        listed = (await client.get("/api/sessions")).json()
        assert [item["title"] for item in listed["items"]] == ["Ours"]
        assert listed["next_cursor"] is None
        gone = await client.delete(path)
        assert (gone.status_code, gone.content) == (204, b"")
        assert (await client.get(path)).status_code == 404
        assert (await client.get("/api/sessions")).json()["items"] == []

    async def test_a_body_is_not_needed(self, client: httpx.AsyncClient) -> None:
        assert (await client.post("/api/sessions")).status_code == 201

    async def test_pages_follow_each_other_without_gap_or_repeat(
        self, client: httpx.AsyncClient
    ) -> None:
        made = [
            (await client.post("/api/sessions", json={"title": str(number)})).json()["title"]
            for number in range(5)
        ]
        seen: list[str] = []
        cursor: str | None = None
        while cursor is not None or not seen:
            page = (
                await client.get(
                    "/api/sessions", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
                )
            ).json()
            seen += [item["title"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert seen == made[::-1]

    async def test_messages_go_back_from_a_message(self, client: httpx.AsyncClient) -> None:
        session_id = str(uuid.uuid4())
        for number in range(3):
            await answered(client, await ask(client, f"/echo {number}", session_id=session_id))
        path = f"/api/sessions/{session_id}/messages"
        whole = (await client.get(path)).json()["items"]
        assert [message["content"] for message in whole] == [
            *("/echo 0", "0", "/echo 1", "1", "/echo 2", "2")
        ]
        latest = (await client.get(path, params={"limit": 2})).json()["items"]
        assert latest == whole[-2:]
        before = {"limit": 3, "before": latest[0]["message_id"]}
        assert (await client.get(path, params=before)).json()["items"] == whole[1:4]

    async def test_another_user_cannot_tell_that_it_exists(
        self, node: WebNode, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/echo secret")
        message_id = asked["assistant_message"]["message_id"]
        path = f"/api/sessions/{asked['session_id']}"
        await answered(client, asked)
        async with node.client_of("stranger") as stranger:
            for method, url in (
                ("GET", path),
                ("PATCH", path),
                ("DELETE", path),
                ("GET", f"{path}/messages"),
                ("GET", f"{path}/events"),
                ("HEAD", f"{path}/events"),
                ("POST", f"/api/chat/{message_id}/cancel"),
                ("POST", f"/api/chat/{message_id}/regenerate"),
                ("GET", f"/chat/{asked['session_id']}"),
                ("GET", f"/chat/{asked['session_id']}/stream"),
                ("GET", f"/chat/{asked['session_id']}/poll"),
            ):
                body = {"json": {"title": "x"}} if method == "PATCH" else {}
                answer = await stranger.request(method, url, **body)  # type: ignore[arg-type]
                assert answer.status_code == 404, (method, url)
            assert (await stranger.get("/api/sessions")).json()["items"] == []
