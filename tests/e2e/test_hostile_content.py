"""Hostile text in a real browser: nothing runs, nothing is fetched, nothing else on the page moves.

The same is tried without our Content-Security-Policy. The policy is the second wall; what gets as
far as it has already passed the first.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.support import hostile
from tests.support.browser import running_browser
from tests.support.nodes import Cluster, ask, messages, running_cluster
from tests.support.scripted_model import DONE, Pause, Step, finish, scripted_model, text

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

_ANSWER = "\n\n".join(hostile.PAYLOADS)
_STORED = _ANSWER.replace("\x00", "\ufffd")  # no database takes the character 0
_QUESTION = "\n".join([*hostile.RUN_SCRIPTS, *hostile.MUTATE]).replace("\x00", "")
_NEXT_QUESTION = "\n".join(" ".join(one.split()) for one in (*hostile.STEER, *hostile.LOAD))
_TITLES = [*hostile.RUN_SCRIPTS, *hostile.MUTATE, *hostile.STEER, *hostile.LOAD]
_WANTED = ["<script>", "steal()", "onerror=", "</title>", "x", "'", "&lt;"]
_NOT_FOUND = [
    "</mark><img src=x onerror=steal()>",
    '"><script>steal()</script>',
    "\u201d</p><svg/onload=steal()>",
    "' autofocus onfocus=steal() x='",
]
_SEED = 20_261_123

_WATCH = """
  window.steal = () => { tell(`ran a script: ${new Error().stack}`); };
  addEventListener('securitypolicyviolation', (event) => {
    tell(`${event.violatedDirective} stopped ${event.blockedURI} ${event.sample}`);
  });
"""

# The tree without texts: tags and attributes, ids and numbers made alike, and repeated siblings
# told once. What an answer or a question consists of is left out.
_SKELETON = """() => {
  // The model is chosen anew for each conversation.
  const IGNORED = new Set(['aria-current', 'aria-label', 'datetime', 'selected', 'title', 'value']);
  const alike = (value) => value.replace(/[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}/g, 'ID')
    .replace(/[0-9]+/g, 'N');
  const tree = (element) => {
    const attributes = [...element.attributes].filter((it) => !IGNORED.has(it.name))
      .map((it) => ` ${it.name}=${alike(it.value)}`).sort().join('');
    // The page without scripts is shown again while an answer is being written.
    const inside = [...element.children].filter((it) => !it.matches('head > noscript')).map(tree);
    if (element.matches('.message .text, textarea')) inside.length = 0;
    const once = inside.filter((it, at) => it !== inside[at - 1]);
    return `<${element.localName}${attributes}>${once.join('')}</>`;
  };
  return tree(document.documentElement);
}"""

# What stands in a text and could act, or could pass for a part of the page.
_SUSPECTS = """() => {
  const ids = [...document.querySelectorAll('[id]')].map((it) => it.id);
  const found = ids.filter((id, at) => ids.indexOf(id) !== at).map((id) => `twice: #${id}`);
  const TAGS = new Set(['a', 'blockquote', 'br', 'code', 'del', 'div', 'em', 'h3', 'h4', 'h5',
    'h6', 'hr', 'li', 'ol', 'p', 'pre', 'section', 'span', 'strong', 'sup', 'table', 'tbody', 'td',
    'th', 'thead', 'tr', 'ul']);
  const ATTRIBUTES = new Set(['align', 'aria-label', 'class', 'href', 'id', 'rel', 'role', 'start',
    'tabindex', 'target', 'title']);
  const CLASSES = /^(t-[a-z]|box|code|done|footnote-(ref|backref)|footnotes|raw|scroll|task|code)$/;
  for (const article of document.querySelectorAll('.message')) {
    // Our own button in a block of code is no part of what was said; there is one for each.
    const buttons = article.querySelectorAll('.text div.code > pre + button.copy').length;
    if (buttons !== article.querySelectorAll('.text :is(.copy, pre)').length / 2)
      found.push(`${buttons} buttons`);
    for (const element of article.querySelectorAll('.text *:not(.copy, .copy *)')) {
      const said = (what) => found.push(`${what} in ${element.outerHTML.slice(0, 200)}`);
      if (!TAGS.has(element.localName)) said(`<${element.localName}>`);
      for (const { name } of element.attributes) if (!ATTRIBUTES.has(name)) said(name);
      for (const name of element.classList) if (!CLASSES.test(name)) said(`class ${name}`);
      if (element.id && !element.id.startsWith(`${article.id}-`)) said(`#${element.id}`);
      const address = element.getAttribute('href');
      if (address !== null && !/^(https?:|mailto:)/.test(address)
        && !address.startsWith(`#${article.id}-`)) said(address);
    }
  }
  return found;
}"""

# What a list of found passages consists of, and nothing else.
_LISTED = """() => [...document.querySelectorAll('#list *')].filter((element) =>
  !['a', 'h2', 'li', 'mark', 'p', 'span', 'time', 'ul'].includes(element.localName)
  || [...element.attributes].some(({ name, value }) =>
    !['class', 'datetime', 'href', 'id'].includes(name)
    || (name === 'href' && !value.startsWith('/chat/')))
).map((element) => element.outerHTML)"""

# All that a reader's hand could set off, short of leaving the page.
_TOUCH = """() => {
  addEventListener('click', (event) => {
    if (/^https?:/.test(event.target.closest('a')?.protocol)) event.preventDefault();
  });
  for (const element of document.querySelectorAll('.message .text, .message .text *, nav *')) {
    if (element.closest('nav') && !element.closest('li')) continue;
    for (const kind of ['mouseover', 'mouseenter', 'focus', 'load', 'error', 'toggle', 'begin'])
      element.dispatchEvent(new Event(kind, { bubbles: true }));
    if (element.closest('.text') && !element.closest('button')) {
      element.dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true }));
    }
  }
}"""


class Watched:
    """A browser's window with everything that it does beyond showing our pages."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        """Take a context that has no page yet."""
        self._context = context
        self._origin = origin
        self.incidents: list[str] = []

    async def page(self, path: str) -> Page:
        """Open a page and watch it from its first byte on."""
        await self._context.expose_function("tell", self._note)
        await self._context.add_init_script(_WATCH)
        self._context.on("request", lambda request: self._judge(request.url))
        page = await self._context.new_page()
        self._context.on("page", lambda opened: self.incidents.append(f"opened {opened.url}"))
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("pageerror", lambda error: self.incidents.append(str(error)))
        page.on("dialog", lambda dialog: self.incidents.append(dialog.message))
        page.on("download", lambda download: self.incidents.append(download.url))
        page.on("websocket", lambda socket: self._judge(socket.url.replace("ws", "http", 1)))
        await page.goto(f"{self._origin}{path}")
        return page

    def _note(self, incident: str) -> None:
        self.incidents.append(incident)

    def _judge(self, url: str) -> None:
        if not url.startswith((f"{self._origin}/", "data:image/svg+xml,")):
            self.incidents.append(f"asked for {url}")

    def _hear(self, kind: str, said: str) -> None:
        if kind in {"error", "warning"}:
            self.incidents.append(said)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """A model that says all of it in pieces of one to nine characters, cut anywhere."""
    async with (
        scripted_model(*_dripping(_ANSWER)) as model,
        running_cluster(
            tmp_path_factory.mktemp("hostile"),
            web=1,
            workers=1,
            MODEL_BASE_URL=f"http://{model.address}/v1",
            MODEL_NAME="hostile",
            FLUSH_INTERVAL_MS="1",
        ) as cluster,
    ):
        yield cluster


def _dripping(whole: str) -> Iterator[Step]:
    cuts = random.Random(_SEED)
    at = 0
    while at < len(whole):
        size = cuts.randint(1, 9)
        yield text(whole[at : at + size])
        yield Pause(0.002)
        at += size
    yield finish()
    yield DONE


async def _ask(page: Page, question: str, answers: int) -> None:
    await page.fill("#question", question)
    await page.press("#question", "Enter")
    await expect(page.locator("article.assistant")).to_have_count(answers, timeout=20_000)
    await expect(page.locator("article.assistant.open")).to_have_count(0, timeout=60_000)
    await expect(page.locator("#send")).to_be_visible()


async def _control(cluster: Cluster, page: Page) -> str:
    """Give what a conversation of two harmless turns consists of."""
    node = cluster.web[0]
    asked: dict[str, Any] = {}
    for turn in range(2):
        asked = await ask(
            node, "/echo hi", model="demo", **asked and {"session_id": asked["session_id"]}
        )
        await page.goto(f"{node.url}/chat/{asked['session_id']}")
        await expect(page.locator("article.assistant")).to_have_count(turn + 1, timeout=20_000)
        await expect(page.locator("article.open")).to_have_count(0, timeout=20_000)
    await _settled(page)
    return str(await page.evaluate(_SKELETON))


async def _settled(page: Page) -> None:
    await expect(page.locator("#connection")).to_have_attribute("data-state", "live")


@pytest.mark.parametrize("guarded", [True, False], ids=["with the policy", "without the policy"])
async def test_questions_and_streamed_answers_are_text(
    cluster: Cluster, browser: Browser, *, guarded: bool
) -> None:
    """All of it as a question, as a title and as an answer that is cut everywhere."""
    origin = cluster.web[0].url
    async with await browser.new_context(bypass_csp=not guarded) as context:
        watched = Watched(context, origin)
        page = await watched.page("/")
        harmless = await _control(cluster, page)

        await page.goto(origin)
        await _ask(page, _QUESTION, 1)
        await _ask(page, _NEXT_QUESTION, 2)
        session_id = page.url.rsplit("/", 1)[1]
        streamed = await _shown(page)
        for again in (False, True):
            if again:
                await page.reload()
                await _settled(page)
            assert await page.evaluate(_SKELETON) == harmless
            assert await page.evaluate(_SUSPECTS) == []
            await page.evaluate(_TOUCH)
            assert page.url.partition("#")[0].endswith(f"/chat/{session_id}")
        assert await _shown(page) == streamed
        stored = await messages(cluster.web[0], session_id)
        assert [message["content"] for message in stored] == [
            _QUESTION, _STORED, _NEXT_QUESTION, _STORED,
        ]  # fmt: skip
        assert watched.incidents == []


async def _shown(page: Page) -> list[str]:
    texts = page.locator(".message .text")
    found: list[str] = await texts.evaluate_all("all => all.map((it) => it.innerHTML)")
    return found


async def test_nothing_is_fetched_where_scripts_are_off(cluster: Cluster, browser: Browser) -> None:
    """Without scripts a parser reads some elements in another way, ``noscript`` above all."""
    node = cluster.web[0]
    asked = await ask(node, _QUESTION)
    await ask(node, _NEXT_QUESTION, model="demo")
    async with await browser.new_context(java_script_enabled=False, bypass_csp=True) as context:
        watched = Watched(context, node.url)
        page = await watched.page(f"/chat/{asked['session_id']}")
        answer = page.locator("article.assistant:not(.open)")
        await expect(answer).to_have_count(1, timeout=60_000)
        await page.reload(wait_until="networkidle")
        assert await page.locator(".text :is(img, iframe, style, link, meta, svg)").count() == 0
        assert watched.incidents == []


@pytest.mark.parametrize("guarded", [True, False], ids=["with the policy", "without the policy"])
async def test_titles_are_text_when_they_come_and_when_they_change(
    cluster: Cluster, browser: Browser, *, guarded: bool
) -> None:
    """In the bar, in the list, in the window's title."""
    node = cluster.web[0]
    asked = await ask(node, "/echo hi", model="demo")
    path = f"/chat/{asked['session_id']}"
    async with await browser.new_context(bypass_csp=not guarded) as context:
        watched = Watched(context, node.url)
        page = await watched.page(path)
        await expect(page.locator("article.open")).to_have_count(0, timeout=20_000)
        await _settled(page)
        harmless = await page.evaluate(_SKELETON)
        for title in _TITLES:
            wanted = " ".join(title.replace("\x00", "").split())[:200].strip()
            answer = await context.request.patch(
                f"{node.url}/api/sessions/{asked['session_id']}", data={"title": wanted}
            )
            assert answer.ok, await answer.text()
            kept = (await answer.json())["title"]
            await expect(page.locator("#title")).to_have_text(kept)
            await expect(page.locator(f"#entry-{asked['session_id']} .name")).to_have_text(kept)
            assert await page.title() == f"{kept} · Throughline"
        assert await page.evaluate(_SKELETON) == harmless
        await page.reload()
        await _settled(page)
        assert await page.evaluate(_SKELETON) == harmless
        await page.evaluate(_TOUCH)
        await page.goto(node.url)
        await page.evaluate(_TOUCH)
        assert watched.incidents == []


@pytest.mark.parametrize("guarded", [True, False], ids=["with the policy", "without the policy"])
async def test_what_a_search_finds_and_what_it_looked_for_are_text(
    cluster: Cluster, browser: Browser, *, guarded: bool
) -> None:
    """Passages that are cut anywhere, with the words marked that somebody put into the address."""
    node = cluster.web[0]
    await ask(node, _QUESTION, model="demo")
    async with await browser.new_context(bypass_csp=not guarded) as context:
        watched = Watched(context, node.url)
        page = await watched.page("/")
        for wanted in _WANTED:
            await page.get_by_role("searchbox").fill(wanted)
            await expect(page.locator("#list mark").first).to_have_text(wanted, ignore_case=True)
            assert await page.evaluate(_LISTED) == []
            await page.evaluate(_TOUCH)
        for looked_for in (*_WANTED, *_NOT_FOUND):
            await page.goto(f"{node.url}/?q={quote(looked_for)}")
            assert await page.get_by_role("searchbox").input_value() == looked_for
            assert await page.evaluate(_LISTED) == []
            await page.evaluate(_TOUCH)
        assert watched.incidents == []
