"""The side bar and the actions on messages without a browser: links, forms, parts of pages."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from app.web.listing import marked
from tests.support.waiting import eventually
from tests.support.web import WebNode, answered, ask, following, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_HTMX = {"HX-Request": "true", "Accept": "text/html"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebNode]:
    async with serving(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest_asyncio.fixture(loop_scope="module")
async def client(node: WebNode) -> AsyncIterator[httpx.AsyncClient]:
    """Give a browser of a user of this test alone."""
    async with node.client_of(f"user-{uuid.uuid4()}") as client:
        client.headers["Accept"] = "text/html,application/xhtml+xml,*/*;q=0.8"
        yield client


async def _conversation(
    client: httpx.AsyncClient, question: str, **fields: str
) -> tuple[str, str, str]:
    """Ask and wait; give the ids of the session, the question and the answer."""
    asked = await ask(client, question, **fields)
    final = await answered(client, asked)
    return asked["session_id"], asked["user_message"]["message_id"], final["message_id"]


async def _title(client: httpx.AsyncClient, session_id: str) -> str:
    title: str = (await client.get(f"/api/sessions/{session_id}")).json()["title"]
    return title


class TestListing:
    async def test_recent_conversations_are_listed_under_their_day(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, _, _ = await _conversation(client, "/echo <one>")
        shown = ""
        for path in ("/", "/conversations", f"/chat/{session_id}"):
            shown = (await client.get(path)).text
            assert "<h2>Today</h2>" in shown
            assert f'<li id="entry-{session_id}">' in shown
            assert "/echo &lt;one&gt;" in shown
        assert 'aria-current="page"' in shown
        part = await client.get(f"/conversations?current={session_id}")
        assert 'aria-current="page"' in part.text
        assert "<html" not in part.text

    async def test_older_conversations_are_a_page_further(self, client: httpx.AsyncClient) -> None:
        ids = [f"s-{number}-{uuid.uuid4()}" for number in range(32)]
        for session_id in ids:
            await client.post("/api/sessions", json={"session_id": session_id, "title": "x"})
        first = (await client.get("/")).text
        (link,) = re.findall(r'href="(/\?cursor=[^"]+)"', first)
        second = (await client.get(link)).text
        listed = [re.findall(r'<li id="entry-([^"]+)"', page) for page in (first, second)]
        assert [len(page) for page in listed] == [30, 2]
        assert sorted(listed[0] + listed[1]) == sorted(ids)
        assert '<a href="/">Newest</a>' in second


class TestSearching:
    async def test_what_is_found_leads_to_its_message(self, client: httpx.AsyncClient) -> None:
        session_id, question_id, answer_id = await _conversation(client, "/echo Öl & <Essig>")
        for path in ("/?q=ÖL+%26", "/conversations?q=öl+%26"):
            shown = (await client.get(path)).text
            assert f'href="/chat/{session_id}"' in shown
            for message_id in (question_id, answer_id):
                place = f"/chat/{session_id}?around={message_id}#m-{message_id}"
                assert f'href="{place}"' in shown
                assert f'id="m-{message_id}"' in (await client.get(place)).text
            assert "<mark>Öl &amp;</mark> &lt;Essig&gt;" in shown
        assert 'value="ÖL &amp;"' in (await client.get("/?q=ÖL+%26")).text

    async def test_what_is_not_there_is_not_found(self, client: httpx.AsyncClient) -> None:
        await _conversation(client, "/echo something")
        shown = (await client.get("/conversations", params={"q": "<else>"})).text
        assert "Nothing found" in shown
        assert "“&lt;else&gt;”" in shown

    async def test_any_text_may_be_searched_for(self, client: httpx.AsyncClient) -> None:
        for wanted in ("x" * 300, "\x00", " \n\t ", "%00", "\ufffd", "' OR 1=1 --", "a\x00b"):
            answer = await client.get("/conversations", params={"q": wanted})
            assert answer.status_code == 200, wanted

    async def test_a_message_however_old_has_an_address(self, client: httpx.AsyncClient) -> None:
        session_id, oldest, _ = await _conversation(client, "/echo first of all")
        for number in range(52):
            await _conversation(client, f"/echo {number}", session_id=session_id)
        newest = await client.get(f"/chat/{session_id}")
        assert f'id="m-{oldest}"' not in newest.text
        found = (await client.get("/conversations?q=first+of+all")).text
        place = f"/chat/{session_id}?around={oldest}"
        assert place in found
        shown = (await client.get(place)).text
        assert f'id="m-{oldest}"' in shown
        assert 'id="composer"' not in shown
        # From there one gets to all that came later, without a gap.
        seen = re.findall(r'<article id="([^"]+)"', shown)
        (later,) = re.findall(r'href="([^"]+)#[^"]+">Later messages', shown)
        last = re.findall(r'<article id="([^"]+)"', (await client.get(later)).text)
        assert set(seen) & set(last)
        assert len({*seen, *last}) == 106
        assert (await client.get(f"/chat/{session_id}?around=nothing")).status_code == 404


class TestRenaming:
    async def test_a_form_renames(self, client: httpx.AsyncClient) -> None:
        session_id, _, _ = await _conversation(client, "/echo x")
        form = (await client.get(f"/chat/{session_id}?rename")).text
        assert 'class="menu" name="menus" open>' in form
        path = f"/chat/{session_id}/rename"
        done = await client.post(path, data={"title": "Mine & yours"})
        assert (done.status_code, done.headers["location"]) == (303, f"/chat/{session_id}")
        assert await _title(client, session_id) == "Mine & yours"
        part = await client.post(path, data={"title": "<b>"}, headers=_HTMX)
        assert 'hx-target="#title" hx-swap="innerHTML">&lt;b&gt;</hx-partial>' in part.text

    async def test_a_title_that_is_none_is_refused(self, client: httpx.AsyncClient) -> None:
        session_id, _, _ = await _conversation(client, "/echo x")
        path = f"/chat/{session_id}/rename"
        for fields in ({"title": " "}, {"title": "x" * 201}, {"name": "x"}, {}):
            answer = await client.post(path, data=fields, headers=_HTMX)
            assert answer.status_code in {400, 415}, fields
        assert await _title(client, session_id) == "/echo x"


class TestDeleting:
    async def test_a_form_deletes_and_another_takes_it_back(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, question_id, answer_id = await _conversation(client, "/echo keep me")
        gone = await client.post(f"/chat/{session_id}/delete", data={})
        assert (gone.status_code, gone.headers["location"]) == (303, f"/?deleted={session_id}")
        assert (await client.get(f"/chat/{session_id}")).status_code == 404
        assert (await client.get(f"/chat/messages/{answer_id}/text")).status_code == 404
        home = (await client.get(gone.headers["location"])).text
        assert "“/echo keep me” was deleted." in home
        assert f'id="entry-{session_id}"' not in home
        back = await client.post(f"/chat/{session_id}/restore", data={})
        assert (back.status_code, back.headers["location"]) == (303, f"/chat/{session_id}")
        shown = (await client.get(f"/chat/{session_id}")).text
        assert f'id="m-{question_id}"' in shown
        assert f'id="m-{answer_id}"' in shown
        again = await client.post(f"/chat/{session_id}/restore", data={})
        assert again.status_code == 404
        assert "was deleted" not in (await client.get(gone.headers["location"])).text

    async def test_what_is_shown_is_left_and_what_is_not_is_not(
        self, client: httpx.AsyncClient
    ) -> None:
        one, _, _ = await _conversation(client, "/echo one")
        two, _, _ = await _conversation(client, "/echo two")
        here = _HTMX | {"HX-Current-URL": f"{client.base_url}/chat/{one}?x#y"}
        aside = await client.post(f"/chat/{two}/delete", data={}, headers=here)
        assert aside.status_code == 200
        assert f'action="/chat/{two}/restore"' in aside.text
        left = await client.post(f"/chat/{one}/delete", data={}, headers=here)
        assert (left.status_code, left.headers["hx-redirect"]) == (204, f"/?deleted={one}")

    async def test_nobody_else_deletes_restores_or_renames(
        self, node: WebNode, client: httpx.AsyncClient
    ) -> None:
        session_id, _, answer_id = await _conversation(client, "/echo mine")
        async with node.client_of("somebody-else") as other:
            for path in ("delete", "rename"):
                answer = await other.post(f"/chat/{session_id}/{path}", data={"title": "x"})
                assert answer.status_code == 404
            for path in ("text", "regenerate"):
                url = f"/chat/messages/{answer_id}/{path}"
                answer = await (
                    other.get(url) if path == "text" else other.post(url, data={"x": 1})
                )
                assert answer.status_code == 404
            await client.post(f"/chat/{session_id}/delete", data={})
            assert (await other.post(f"/chat/{session_id}/restore", data={})).status_code == 404
            assert "was deleted" not in (await other.get(f"/?deleted={session_id}")).text

    async def test_streams_end_and_begin_again_when_it_is_back(
        self, client: httpx.AsyncClient
    ) -> None:
        """On the node that has seen it deleted a moment ago, and goes on to know it."""
        session_id, _, _ = await _conversation(client, "/echo one")
        events_path = f"/api/sessions/{session_id}/events"
        async with following(client, events_path) as events:
            before = (await until(events, "history"))[-1]
            await client.post(f"/chat/{session_id}/delete", data={})
            bye = (await until(events, "bye"))[-1]
        assert bye.json()["reason"] == "session_deleted"
        await client.post(f"/chat/{session_id}/restore", data={})
        async with following(client, events_path, **{"Last-Event-ID": before.id}) as events:
            again = (await until(events, "history"))[-1]
            assert [one["content"] for one in again.json()["messages"]] == ["/echo one", "one"]
            epochs = [int(one.id.partition("-")[0]) for one in (before, again)]
            assert epochs[0] < epochs[1]
            asked = await ask(client, "/echo two", session_id=session_id)
            final = await answered(client, asked)
            assert final["content"] == "two"
            async for event in events:
                if event.event == "message" and event.json()["message_id"] == final["message_id"]:
                    break

    async def test_an_answer_that_is_cut_keeps_its_text(self, client: httpx.AsyncClient) -> None:
        asked = await ask(client, "/count 2000 10")
        session_id = asked["session_id"]
        async with following(client, f"/api/sessions/{session_id}/events") as events:
            await until(events, "chunk")
        await client.post(f"/chat/{session_id}/delete", data={})
        await client.post(f"/chat/{session_id}/restore", data={})
        page = await client.get(f"/api/sessions/{session_id}/messages")
        answer = page.json()["items"][-1]
        assert answer["status"] == "cancelled"
        assert answer["content"].startswith("1")
        again = await answered(client, await ask(client, "/echo on", session_id=session_id))
        assert again["content"] == "on"
        # The worker that was cut off has not put in a word since.
        page = await client.get(f"/api/sessions/{session_id}/messages")
        assert page.json()["items"][1] == answer

    async def test_a_worker_purges_what_is_due(self, tmp_path: Path) -> None:
        async with (
            serving(tmp_path, delete_undo_seconds=1, reconcile_seconds=0.1) as node,
            node.client() as client,
        ):
            session_id, _, _ = await _conversation(client, "/echo gone soon")
            await client.post(f"/chat/{session_id}/delete", data={})
            assert node.rows()["messages"] == 2
            await eventually(lambda: node.rows()["messages"] == 0, "purged", seconds=20)
            answer = await client.post(f"/chat/{session_id}/restore", data={}, headers=_HTMX)
            assert answer.status_code == 404
            assert "can no longer be restored" in answer.text

    async def test_without_a_window_nothing_is_kept(self, tmp_path: Path) -> None:
        async with serving(tmp_path, delete_undo_seconds=0) as node, node.client() as client:
            session_id, _, _ = await _conversation(client, "/echo gone now")
            gone = await client.post(f"/chat/{session_id}/delete", data={})
            assert node.rows()["messages"] == 0
            assert "was deleted" not in (await client.get(gone.headers["location"])).text


class TestMessages:
    async def test_the_source_of_a_message_is_given_as_it_was_written(
        self, client: httpx.AsyncClient
    ) -> None:
        _, _, answer_id = await _conversation(client, "/echo **b** <b>\n\n* ü 😀\r|")
        answer = await client.get(f"/chat/messages/{answer_id}/text")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.content.decode() == "**b** <b>\n\n* ü 😀\r|"

    async def test_every_answer_that_ended_can_be_copied_and_asked_for_again(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, question_id, answer_id = await _conversation(client, "/echo one")
        shown = (await client.get(f"/chat/{session_id}")).text
        assert f'data-copy="/chat/messages/{answer_id}/text"' in shown
        assert f'action="/chat/messages/{answer_id}/regenerate"' in shown
        assert f"/chat/messages/{question_id}/" not in shown
        assert "<span>Regenerate</span>" in shown
        done = await client.post(
            f"/chat/messages/{answer_id}/regenerate",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert (done.status_code, done.headers["location"]) == (303, f"/chat/{session_id}")

    async def test_what_did_not_succeed_is_offered_again(self, client: httpx.AsyncClient) -> None:
        session_id, _, answer_id = await _conversation(client, "/fail 3")
        shown = (await client.get(f"/chat/{session_id}")).text
        assert "This answer failed" in shown
        assert "<span>Try again</span>" in shown
        part = await client.post(
            f"/chat/messages/{answer_id}/regenerate", data={"x": ""}, headers=_HTMX
        )
        assert f'hx-target="#m-{answer_id}" hx-swap="outerMorph"' in part.text
        assert f"/chat/messages/{answer_id}/stop" in part.text

    async def test_only_the_latest_is_written_again(self, client: httpx.AsyncClient) -> None:
        session_id, _, first = await _conversation(client, "/echo one")
        await _conversation(client, "/echo two", session_id=session_id)
        path, fields = f"/chat/messages/{first}/regenerate", {"x": ""}
        told = await client.post(path, data=fields, headers=_HTMX)
        assert told.status_code == 409
        assert told.text == "<p>Only the latest answer can be generated again</p>"
        sent_on = await client.post(path, data=fields)
        assert (sent_on.status_code, sent_on.headers["location"]) == (303, f"/chat/{session_id}")


@pytest.mark.parametrize(
    ("text", "wanted", "shown"),
    [
        ("a <b> A", "a", "<mark>a</mark> &lt;b&gt; <mark>A</mark>"),
        ("Straße", "STRASSE", "<mark>Straße</mark>"),
        ("Straße", "ss", "Stra<mark>ß</mark>e"),
        ("Straße", "sse", "Stra<mark>ße</mark>"),
        ("ßß", "s", "<mark>ß</mark><mark>ß</mark>"),
        ("aaa", "aa", "<mark>aa</mark>a"),
        ("nothing", "x", "nothing"),
    ],
)
async def test_what_was_looked_for_is_marked(text: str, wanted: str, shown: str) -> None:
    assert marked(text, wanted) == shown
