"""The pages without a browser: what they hold, what their forms do, what their stream says."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import uuid
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from urllib.parse import quote_plus

import httpx
import pytest
import pytest_asyncio

from tests.support.web import WebNode, answered, ask, following, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_HTMX = {"HX-Request": "true", "Accept": "text/html"}
_AWKWARD = "  \r\n\n<b>&amp; \r 'quoted' \"too\"\n\ttab  \u2028 ümläut 😀\n"


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


class Page(HTMLParser):
    """The parts of a page that the tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        self.form: dict[str, str | None] = {}
        self.stream = ""
        self.position = ""
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self._article = ""
        self._divisions = 0
        self._elsewhere = False
        self._into: dict[str, str] | None = None
        self._key = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.inline += [name for name in found if name == "style" or name.startswith("on")]
        if tag == "article":
            self._article = found["id"] or ""
        elif tag == "div" and self._into is self.texts:
            self._divisions += 1
        elif tag == "div" and found.get("class") == "text":
            self._into, self._key, self._divisions = self.texts, self._article, 1
            self.texts[self._key] = ""
        elif tag == "textarea":
            self._into, self._key = self.fields, found["name"] or ""
            self.fields[self._key] = ""
        elif tag == "input" and not self._elsewhere:
            self.fields[found["name"] or ""] = found["value"] or ""
        elif tag == "form":
            # The page has others beside the one to ask with.
            self._elsewhere = found.get("id") != "composer"
            if not self._elsewhere:
                self.form = found
        elif tag in {"script", "link"}:
            self.loaded.append(found.get("src") or found.get("href") or "inline")
        if found.get("id") == "stream":
            session_id, self.position = found["data-session"], found["data-position"] or ""
            self.stream = f"/chat/{session_id}/stream?last_event_id={self.position}"

    def handle_endtag(self, tag: str) -> None:
        if tag == "div":
            self._divisions -= 1
        if tag == "textarea" or (tag == "div" and self._divisions == 0):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[self._key] += data


def _page(answer: httpx.Response) -> Page:
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


async def _conversation(client: httpx.AsyncClient, question: str) -> tuple[str, str]:
    """Ask and wait; give the session's id and the answer's."""
    asked = await ask(client, question)
    final = await answered(client, asked)
    return asked["session_id"], final["message_id"]


class TestShowing:
    async def test_the_first_page_asks_and_lists_conversations(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, _ = await _conversation(client, "/echo <listed>")
        answer = await client.get("/")
        page = _page(answer)
        assert page.form["action"] == page.form["hx-post"] == "/chat"
        assert page.fields["message"] == "\n"
        assert len(page.fields["client_message_id"]) == 32
        assert str(uuid.UUID(page.fields["session_id"])) == page.fields["session_id"]
        assert f'href="/chat/{session_id}"' in answer.text
        assert "/echo &lt;listed&gt;" in answer.text
        assert answer.headers["cache-control"] == "no-store"

    async def test_a_conversation_stands_at_the_position_where_its_stream_begins(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, message_id = await _conversation(client, "/echo hi")
        page = _page(await client.get(f"/chat/{session_id}"))
        polled = await client.get(f"/api/sessions/{session_id}/events?transport=poll")
        position = polled.json()["position"]
        assert page.position == position
        assert page.texts[f"m-{message_id}"] == "hi"

    async def test_text_and_stream_together_are_the_stored_answer(
        self, client: httpx.AsyncClient
    ) -> None:
        """A reload in the middle: what the page had, and what is added to it from there."""
        asked = await ask(client, "/count 200 10")
        session_id = asked["session_id"]
        message_id = asked["assistant_message"]["message_id"]
        async with following(client, f"/api/sessions/{session_id}/events") as events:
            await until(events, "chunk")
        page = _page(await client.get(f"/chat/{session_id}"))
        shown = page.texts[f"m-{message_id}"]
        block = re.compile(rf'<div id="m-{message_id}-b0"><p>([^<]*)</p></div>')
        states = [shown]
        async with following(client, page.stream) as fragments:
            async for fragment in fragments:
                if f'<article id="m-{message_id}"' in fragment.data:
                    break
                states += block.findall(fragment.data)
        expected = " ".join(str(number) for number in range(1, 201))
        assert shown
        assert len(states) > 2
        assert states[-1] == expected
        assert all(after.startswith(before) for before, after in itertools.pairwise(states)), states
        assert Page(fragment.data).texts[f"m-{message_id}"] == expected

    async def test_any_question_is_shown_byte_for_byte(self, client: httpx.AsyncClient) -> None:
        asked = await ask(client, f"/echo {_AWKWARD}|")
        await answered(client, asked)
        answer = await client.get(f"/chat/{asked['session_id']}")
        texts = _page(answer).texts
        question = asked["user_message"]
        assert texts[f"m-{question['message_id']}"] == question["content"]
        # A parser reads a bare one as a line feed.
        assert b"\r" not in answer.content

    async def test_an_answer_is_markdown_that_cannot_act(self, client: httpx.AsyncClient) -> None:
        text = "**bold** <b onclick='x()'> <hx-partial hx-target='#title'> [go](/chat/messages)"
        session_id, message_id = await _conversation(client, f"/echo {text}")
        answer = await client.get(f"/chat/{session_id}")
        shown = answer.text.partition(f'<article id="m-{message_id}"')[2]
        shown = shown.partition('<div class="text">')[2].partition("</article>")[0]
        assert "<strong>bold</strong> &lt;b onclick='x()'&gt; &lt;hx-partial" in shown
        assert "href" not in shown
        assert _page(answer).inline == []

    async def test_nothing_is_inline_and_nothing_comes_from_elsewhere(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, _ = await _conversation(client, "/echo hi")
        for path in ("/", f"/chat/{session_id}", "/schema", "/nothing"):
            page = _page(await client.get(path))
            assert page.inline == []
            for url in page.loaded:
                assert url.startswith("/static/"), path
                asset = await client.get(url)
                assert asset.is_success
                assert "immutable" in asset.headers["cache-control"]

    async def test_a_problem_is_a_page_to_a_browser(self, client: httpx.AsyncClient) -> None:
        for path, status in (("/nothing", 404), ("/chat/none", 404), ("/chat/a b", 400)):
            answer = await client.get(path)
            assert answer.status_code == status
            assert "<main" in _page(answer).rawdata or "<main" in answer.text
            assert answer.headers["x-request-id"]

    async def test_older_messages_have_a_page_of_their_own(self, client: httpx.AsyncClient) -> None:
        session_id = str(uuid.uuid4())
        for number in range(2):
            await answered(client, await ask(client, f"/echo {number}", session_id=session_id))
        items = (await client.get(f"/api/sessions/{session_id}/messages")).json()["items"]
        older = await client.get(f"/chat/{session_id}?before={items[2]['message_id']}")
        page = _page(older)
        assert [*page.texts] == [f"m-{item['message_id']}" for item in items[:2]]
        assert page.stream == ""
        assert page.form == {}


class TestAskingByForm:
    async def test_without_a_script_it_posts_and_is_sent_on(
        self, client: httpx.AsyncClient
    ) -> None:
        fields = _page(await client.get("/")).fields | {"message": "/echo one\r\ntwo"}
        first = await client.post("/chat", data=fields)
        again = await client.post("/chat", data=fields)
        location = f"/chat/{fields['session_id']}"
        assert (first.status_code, first.headers["location"]) == (303, location)
        assert (again.status_code, again.headers["location"]) == (303, location)
        texts = _page(await client.get(location)).texts
        assert next(iter(texts.values())) == "/echo one\ntwo"
        assert len(texts) == 2

    async def test_the_next_question_goes_to_the_same_conversation(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, _ = await _conversation(client, "/echo one")
        page = _page(await client.get(f"/chat/{session_id}"))
        answer = await client.post(
            page.form["action"] or "", data=page.fields | {"message": "/echo two"}
        )
        assert (answer.status_code, answer.headers["location"]) == (303, f"/chat/{session_id}")
        texts = _page(await client.get(f"/chat/{session_id}")).texts
        assert "/echo two" in texts.values()

    async def test_a_refused_question_is_given_back_with_the_reason(
        self, client: httpx.AsyncClient
    ) -> None:
        text = "x" * 5001
        fields = _page(await client.get("/")).fields | {"message": text}
        answer = await client.post("/chat", data=fields)
        assert answer.status_code == 400
        assert "at most 5000 characters" in answer.text
        assert _page(answer).fields["message"] == f"\n{text}"

    async def test_while_an_answer_is_written_another_question_is_given_back(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/count 500 20")
        session_id = asked["session_id"]
        page = _page(await client.get(f"/chat/{session_id}"))
        fields = page.fields | {"message": "me too"}
        path = f"/chat/{session_id}/messages"
        answer = await client.post(path, data=fields)
        assert answer.status_code == 409
        assert _page(answer).fields["message"] == "\nme too"
        fragment = await client.post(path, data=fields, headers=_HTMX)
        assert fragment.status_code == 409
        assert fragment.text == "<p>An answer is being generated in this session</p>"
        stop = f"/chat/messages/{asked['assistant_message']['message_id']}/stop"
        stopped = await client.post(stop, data={"session_id": session_id})
        assert (stopped.status_code, stopped.headers["location"]) == (303, f"/chat/{session_id}")
        assert (await answered(client, asked))["status"] == "cancelled"
        assert "Stopped." in (await client.get(f"/chat/{session_id}")).text

    async def test_with_htmx_the_page_stays_and_gets_a_new_key(
        self, client: httpx.AsyncClient
    ) -> None:
        home = _page(await client.get("/")).fields | {"message": "/echo one"}
        first = await client.post("/chat", data=home, headers=_HTMX)
        assert first.status_code == 204
        assert first.headers["hx-redirect"] == f"/chat/{home['session_id']}"
        path = first.headers["hx-redirect"]
        async with following(client, f"/api/sessions/{home['session_id']}/events") as events:
            await until(events, "history")
            await client.post(f"{path}/stop", data={}, headers=_HTMX)
        fields = _page(await client.get(path)).fields | {"message": "/echo two"}
        async with asyncio.timeout(10):
            while True:
                answer = await client.post(f"{path}/messages", data=fields, headers=_HTMX)
                if answer.status_code != 409:
                    break
        assert answer.status_code == 200
        key = Page(answer.text).fields["client_message_id"]
        assert key not in {"", fields["client_message_id"]}

    async def test_what_is_awaited_can_be_stopped_before_its_id_is_known(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/count 500 20")
        session_id = asked["session_id"]
        stopped = await client.post(f"/chat/{session_id}/stop", data={}, headers=_HTMX)
        assert (stopped.status_code, stopped.content) == (204, b"")
        assert (await answered(client, asked))["status"] == "cancelled"
        again = await client.post(f"/chat/{session_id}/stop", data={})
        assert again.status_code == 303

    async def test_the_page_reloads_itself_without_a_script_only_while_it_must(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/count 500 20")
        path = f"/chat/{asked['session_id']}"
        assert '<meta http-equiv="refresh"' in (await client.get(path)).text
        await client.post(f"{path}/stop", data={})
        await answered(client, asked)
        assert '<meta http-equiv="refresh"' not in (await client.get(path)).text


class TestItsStream:
    async def test_the_header_wins_over_the_url_that_the_page_began_with(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, message_id = await _conversation(client, "/echo hi")
        page = _page(await client.get(f"/chat/{session_id}"))
        begun = page.stream.rpartition("=")[2]
        epoch, seq = begun.split("-")
        before = f"{epoch}-{int(seq) - 1}"
        async with following(client, page.stream, **{"Last-Event-ID": before}) as fragments:
            async for fragment in fragments:
                if fragment.id:
                    break
        assert fragment.id == begun
        assert f'<article id="m-{message_id}"' in fragment.data

    async def test_a_position_that_is_gone_replaces_all_messages(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, message_id = await _conversation(client, "/echo hi")
        async with following(client, f"/chat/{session_id}/stream?last_event_id=1-1") as fragments:
            async for fragment in fragments:
                if fragment.id:
                    break
        assert 'hx-target="#messages" hx-swap="innerHTML"' in fragment.data
        assert Page(fragment.data).texts[f"m-{message_id}"] == "hi"

    async def test_a_new_title_arrives(self, client: httpx.AsyncClient) -> None:
        session_id, _ = await _conversation(client, "/echo hi")
        page = _page(await client.get(f"/chat/{session_id}"))
        async with following(client, page.stream) as fragments:
            await until(fragments, "welcome")
            await client.patch(f"/api/sessions/{session_id}", json={"title": "A & B"})
            async for fragment in fragments:
                if fragment.id:
                    break
        assert 'hx-target="#title"' in fragment.data
        assert "A &amp; B" in fragment.data

    async def test_a_deleted_conversation_says_so_and_ends_for_good(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, _ = await _conversation(client, "/echo hi")
        page = _page(await client.get(f"/chat/{session_id}"))
        async with following(client, page.stream) as fragments:
            await until(fragments, "welcome")
            await client.delete(f"/api/sessions/{session_id}")
            live = await until(fragments, "bye")
            assert [event async for event in fragments] == []
        async with following(client, page.stream) as fragments:
            late = await until(fragments, "bye")
        polled = (await client.get(page.stream.replace("/stream?", "/poll?"))).json()
        for seen in (live, late):
            assert json.loads(seen[-1].data)["reason"] == "session_deleted"
            assert seen[-2].data == polled["html"]
        assert polled["ended"] is True
        assert "was deleted" in polled["html"]

    async def test_polls_bring_what_the_stream_does_and_stand_where_they_say(
        self, client: httpx.AsyncClient
    ) -> None:
        asked = await ask(client, "/count 60 10")
        message_id = asked["assistant_message"]["message_id"]
        position, polled, seen = asked["position"], {"html": ""}, 0
        while f'id="m-{message_id}" class="message assistant"' not in polled["html"]:
            answer = await client.get(
                f"/chat/{asked['session_id']}/poll?last_event_id={position}&wait=5"
            )
            polled, seen = answer.json(), seen + 1
            assert answer.headers["cache-control"] == "no-store"
            assert polled["html"]
            assert polled["position"] != position
            assert polled["ended"] is False
            position = polled["position"]
        assert seen > 2
        text = Page(polled["html"]).texts[f"m-{message_id}"]
        assert text == " ".join(str(number) for number in range(1, 61))

    async def test_a_poll_that_finds_nothing_new_says_where_it_stands(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, _ = await _conversation(client, "/echo hi")
        position = _page(await client.get(f"/chat/{session_id}")).position
        path = f"/chat/{session_id}/poll?last_event_id={position}"
        assert (await client.get(path)).json() == {
            "html": "",
            "position": position,
            "ended": False,
        }
        assert (await client.head(f"{path}&wait=30")).status_code == 200
        waiting = asyncio.ensure_future(client.get(f"{path}&wait=30"))
        await client.patch(f"/api/sessions/{session_id}", json={"title": "Renamed"})
        assert "Renamed" in (await waiting).json()["html"]

    async def test_a_poll_without_a_position_brings_everything(
        self, client: httpx.AsyncClient
    ) -> None:
        session_id, message_id = await _conversation(client, "/echo hi")
        page = _page(await client.get(f"/chat/{session_id}"))
        polled = (await client.get(f"/chat/{session_id}/poll")).json()
        assert polled["position"] == page.position
        assert Page(polled["html"]).texts[f"m-{message_id}"] == "hi"

    async def test_a_form_cannot_make_a_conversation_of_any_address(
        self, client: httpx.AsyncClient
    ) -> None:
        fields = f"message={quote_plus('/echo x')}"
        answer = await client.post(
            "/chat/never-made/messages",
            content=fields,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert answer.status_code == 404
        assert (await client.get("/api/sessions/never-made")).status_code == 404
