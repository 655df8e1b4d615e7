"""The page's connection in a real browser: three transports, and everything that cuts them.

Whatever happens on the way, the page ends as a fresh load of it would be drawn.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, CDPSession, Page, Route, expect

from app.models.demo.canned import CannedAnswers
from app.models.demo.script import script_for
from tests.support.browser import running_browser, watch_console
from tests.support.nodes import Cluster, Node, ask, messages, running_cluster
from tests.support.proxy import Proxy, proxying

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

_OPEN = "article.assistant.open"
_LAST = "article.assistant >> nth=-1"
_STATE = "#connection"
_LOOK_SECONDS = 0.03
_BROWSERS_OWN_WORDS = ("Failed to load resource", "WebSocket connection to")
"""What Chromium says of a connection that the test cut."""

_WATCH = """
window.boxes = new Set();
addEventListener("DOMContentLoaded", () => {
  const connection = document.getElementById("connection");
  if (!connection) return;
  const look = () => {
    const { x, y, width, height } = connection.getBoundingClientRect();
    window.boxes.add([x, y, width, height].join());
  };
  new MutationObserver(look).observe(connection, {
    attributes: true, childList: true, characterData: true, subtree: true });
  look();
});
"""


@dataclass
class World:
    """What the tests of this module share."""

    cluster: Cluster
    browser: Browser

    @property
    def node(self) -> Node:
        """Give the web node behind the proxies."""
        return self.cluster.web[0]


@dataclass
class Tab:
    """A page that shows a session through a proxy."""

    world: World
    page: Page
    complaints: list[str]
    session_id: str

    async def says(self, words: str, seconds: float = 15) -> None:
        """Wait until the indicator says so."""
        await expect(self.page.locator(_STATE)).to_have_text(words, timeout=seconds * 1000)

    async def shows(self, text: str, seconds: float = 20) -> None:
        """Wait until the answer has it."""
        await expect(self.page.locator(_LAST)).to_contain_text(text, timeout=seconds * 1000)

    async def finishes(self, seconds: float = 30) -> None:
        """Wait for the end of the answer; the page must be what a fresh load of it is.

        What the indicator says has moved nothing, and nobody complained.
        """
        await expect(self.page.locator(_OPEN)).to_have_count(0, timeout=seconds * 1000)
        await expect(self.page.locator("#send")).to_be_visible()
        shown = await _articles(self.page)
        fresh = await self.page.context.new_page()
        await fresh.goto(f"{self.world.node.url}/chat/{self.session_id}")
        assert shown == await _articles(fresh)
        await fresh.close()
        assert len(await self.page.evaluate("[...window.boxes]")) == 1
        assert self.unexpected() == []

    def unexpected(self) -> list[str]:
        """Give what the page complained of, but for connections that were cut."""
        return [said for said in self.complaints if not said.startswith(_BROWSERS_OWN_WORDS)]


async def _articles(page: Page) -> Any:
    return await page.locator("#messages article").evaluate_all(
        "all => all.map(it => it.outerHTML)"
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with (
        running_cluster(
            tmp_path_factory.mktemp("cluster"),
            web=1,
            workers=1,
            DEMO_DELAY_MS="10",
            STREAM_HEARTBEAT_SECONDS="1",
        ) as cluster,
        running_browser() as browser,
    ):
        yield World(cluster, browser)


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(world: World) -> AsyncIterator[Proxy]:
    async with proxying(world.node.url) as proxy:
        yield proxy


@pytest_asyncio.fixture(loop_scope="module")
async def context(world: World) -> AsyncIterator[BrowserContext]:
    context = await world.browser.new_context()
    await context.add_init_script(_WATCH)
    yield context
    await context.close()


async def _open(world: World, context: BrowserContext, url: str, session_id: str) -> Tab:
    page = await context.new_page()
    tab = Tab(world, page, watch_console(page), session_id)
    await page.goto(f"{url}/chat/{session_id}")
    return tab


async def _asked(world: World, question: str) -> str:
    session_id: str = (await ask(world.node, question))["session_id"]
    return session_id


async def _stored(world: World, session_id: str) -> dict[str, Any]:
    return (await messages(world.node, session_id))[-1]


async def _until_stored(world: World, session_id: str, text: str) -> None:
    """Wait until the answer has it, whatever any page shows."""
    await _until(world, session_id, lambda stored: text in stored["content"])


async def _until_complete(world: World, session_id: str) -> None:
    await _until(world, session_id, lambda stored: stored["is_complete"])


async def _until(world: World, session_id: str, is_so: Callable[[dict[str, Any]], bool]) -> None:
    async with asyncio.timeout(40):
        while True:
            if is_so(await _stored(world, session_id)):
                return
            await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def _frozen(page: Page) -> AsyncIterator[CDPSession]:
    """Freeze the page as a browser freezes a tab in the background: no task of it runs."""
    debugger = await page.context.new_cdp_session(page)
    await debugger.send("Page.setWebLifecycleState", {"state": "frozen"})
    try:
        yield debugger
    finally:
        await debugger.send("Page.setWebLifecycleState", {"state": "active"})
        await debugger.detach()


async def test_reloads_at_ten_moments_of_one_answer_miss_nothing(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    pieces = len(script_for("/markdown", CannedAnswers()).steps)
    moments = sorted(random.Random(11).sample(range(1, pieces), 10))
    session_id = await _asked(world, "/markdown")
    tab = await _open(world, context, proxy.url, session_id)
    for moment in moments:
        await tab.page.wait_for_function(
            "seq => document.querySelector('#stream').dataset.position.split('-')[1] >= seq",
            arg=moment,
        )
        await tab.page.reload()
    await tab.finishes()
    assert tab.complaints == []


async def test_offline_for_ten_seconds_in_the_middle_of_an_answer(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    session_id = await _asked(world, "/count 650 20")
    tab = await _open(world, context, proxy.url, session_id)
    await tab.shows(" 50 ")
    await context.set_offline(True)
    await tab.says("Offline")
    # 500 words at 20 ms each.
    await _until_stored(world, session_id, " 560 ")
    # Right after a try that failed, when the next one is seconds away.
    await tab.page.wait_for_event("requestfailed")
    await context.set_offline(False)
    await tab.shows(" 560 ", seconds=2)
    await tab.says("Live · WebSocket")
    await tab.finishes()


async def test_a_refused_websocket_falls_back_to_sse_which_is_remembered_for_an_hour(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    proxy.refuses_sockets = True
    session_id = await _asked(world, "/markdown")
    tab = await _open(world, context, proxy.url, session_id)
    await tab.says("Live · SSE")
    await tab.finishes()
    proxy.refuses_sockets = False
    proxy.seen.clear()
    await tab.page.reload()
    await tab.says("Live · SSE")
    assert not [path for path in proxy.seen if path.startswith("/ws/")]
    await tab.page.evaluate(
        """() => {
          const [[name, kept]] = Object.entries(localStorage).filter(([name]) =>
            name.endsWith("transport"));
          const aged = { ...JSON.parse(kept), at: Date.now() - 3600001 };
          localStorage.setItem(name, JSON.stringify(aged));
        }"""
    )
    await tab.page.reload()
    await tab.says("Live · WebSocket")
    assert tab.unexpected() == []


async def test_where_both_are_held_back_the_page_polls_and_remembers_it(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    """Neither says a word for five seconds each; meanwhile requests still get through."""
    proxy.holds_sockets = proxy.holds_events = True
    session_id = await _asked(world, "/count 3 1")
    await _until_complete(world, session_id)
    tab = await _open(world, context, proxy.url, session_id)
    await tab.says("Live · polling")
    proxy.seen.clear()
    await ask(world.node, "/markdown", session_id=session_id)
    await tab.shows("Heading")
    await tab.page.reload()
    await tab.says("Live · polling", seconds=3)
    assert {
        path.split("?")[0] for path in proxy.seen if "/stream" in path or "/ws/" in path
    } == set()
    await tab.finishes()
    assert (await _stored(world, session_id))["status"] == "complete"


async def test_tabs_on_three_transports_are_in_step_and_any_of_them_stops_the_answer(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    session_id = await _asked(world, "/count 3 1")
    await _until_complete(world, session_id)
    tabs = []
    for way in ("websocket", "sse", "poll"):
        own = await world.browser.new_context()
        await own.add_init_script(_WATCH)
        await own.add_init_script(
            f"""localStorage.setItem("throughline.transport",
              JSON.stringify({{ way: "{way}", at: Date.now() }}))"""
        )
        tabs.append(await _open(world, own, proxy.url, session_id))
    for tab, words in zip(tabs, ("WebSocket", "SSE", "polling"), strict=True):
        await tab.says(f"Live · {words}")
    await tabs[0].page.fill("#question", "/count 1000 20")
    await tabs[0].page.press("#question", "Enter")
    for tab in tabs:
        await tab.shows(" 10 ")
    await tabs[2].page.click("#stop")
    for tab in tabs:
        await tab.shows("Stopped.")
        await tab.finishes()
        assert tab.complaints == []
        await tab.page.context.close()
    assert (await _stored(world, session_id))["status"] == "cancelled"


async def test_a_tab_that_was_frozen_for_long_is_current_within_a_second(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    """Its connections are long gone by then, and nothing told it so."""
    session_id = await _asked(world, "/count 150 20")
    tab = await _open(world, context, proxy.url, session_id)
    await tab.shows(" 20 ")
    async with _frozen(tab.page):
        await _until_complete(world, session_id)
        proxy.strand()
    await expect(tab.page.locator(_OPEN)).to_have_count(0, timeout=1000)
    await tab.says("Live · WebSocket")
    await tab.finishes()


async def test_a_tab_that_was_hidden_is_current_as_soon_as_it_is_shown(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    """An hour passes by the clock while it is hidden, on a connection that died without a word."""
    session_id = await _asked(world, "/count 150 20")
    tab = await _open(world, context, proxy.url, session_id)
    await tab.shows(" 20 ")
    show = """hidden => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await tab.page.evaluate(show, True)
    proxy.strand()
    await _until_complete(world, session_id)
    await tab.page.evaluate("() => { const now = Date.now; Date.now = () => now() + 3600000; }")
    await tab.page.evaluate(show, False)
    await expect(tab.page.locator(_OPEN)).to_have_count(0, timeout=1000)
    await tab.finishes()


async def test_a_connection_that_died_in_silence_is_noticed_without_any_event(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    """No frame for two and a half heartbeats (of a second here): a fresh connection."""
    session_id = await _asked(world, "/count 250 20")
    tab = await _open(world, context, proxy.url, session_id)
    await tab.shows(" 20 ")
    proxy.strand()
    await tab.shows(" 245 ", seconds=8)
    await tab.says("Live · WebSocket")
    await tab.finishes()


async def test_a_page_that_comes_out_of_the_back_forward_cache_goes_on(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    """Its connection was closed for the cache to take it; what it missed comes at once."""
    proxy.lets_store = True
    session_id = await _asked(world, "/count 300 20")
    tab = await _open(world, context, proxy.url, session_id)
    await tab.page.evaluate(
        "addEventListener('pageshow', it => { document.body.dataset.persisted = it.persisted; })"
    )
    await tab.shows(" 30 ")
    await tab.page.goto(f"{proxy.url}/schema")
    await _until_stored(world, session_id, " 120 ")
    proxy.seen.clear()
    await tab.page.go_back(wait_until="commit")
    await expect(tab.page.locator("body")).to_have_attribute("data-persisted", "true")
    await tab.shows(" 120 ", seconds=2)
    await tab.finishes()
    assert not [path for path in proxy.seen if path == f"/chat/{session_id}"]
    assert tab.complaints == []


async def test_going_back_without_that_cache_is_a_fresh_page(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    session_id = await _asked(world, "/count 200 20")
    tab = await _open(world, context, proxy.url, session_id)
    await tab.shows(" 30 ")
    await tab.page.goto(f"{proxy.url}/schema")
    await _until_stored(world, session_id, " 80 ")
    await tab.page.go_back()
    await tab.shows(" 80 ", seconds=2)
    await tab.finishes()
    assert tab.complaints == []


async def test_a_node_that_dies_and_one_that_is_stopped_do_not_cost_the_websocket(
    world: World, context: BrowserContext
) -> None:
    """A server that restarts in the middle of an answer says nothing about the transport."""
    session_id = await _asked(world, "/count 500 20")
    node = await world.cluster.start_web("web-dies")
    port = int(node.url.rpartition(":")[2])
    tab = await _open(world, context, node.url, session_id)
    await tab.says("Live · WebSocket")
    for number, how in enumerate((signal.SIGKILL, signal.SIGTERM)):
        node.signal(how)
        await asyncio.to_thread(node.process.wait, 20)
        await expect(tab.page.locator(_STATE)).to_have_attribute("data-state", "reconnecting")
        node = await world.cluster.start_web(f"web-again-{number}", port=port)
        await tab.says("Live · WebSocket")
    await tab.finishes()
    assert (await _stored(world, session_id))["status"] == "complete"


@pytest.mark.parametrize(("status", "words"), [(401, "Signed out"), (404, "Not connected")])
async def test_a_connection_that_may_not_come_back_says_so_and_stays_away(
    world: World, context: BrowserContext, proxy: Proxy, status: int, words: str
) -> None:
    session_id = await _asked(world, "/count 3 1")
    tab = await _open(world, context, proxy.url, session_id)
    await tab.says("Live · WebSocket")
    await tab.page.route("**/poll?*", lambda route: route.fulfill(status=status))
    proxy.seen.clear()
    proxy.cut()
    await tab.says(words)
    # Where a credential is refused, the page has asked whether it would be refused as well.
    assert proxy.seen == ([f"/chat/{session_id}"] if status == HTTPStatus.UNAUTHORIZED else [])
    proxy.seen.clear()
    await tab.page.evaluate("dispatchEvent(new Event('online'))")
    assert proxy.seen == []
    assert tab.unexpected() == []


async def test_a_server_that_is_full_is_asked_again_when_it_said_so(
    world: World, context: BrowserContext, proxy: Proxy
) -> None:
    session_id = await _asked(world, "/count 200 20")
    tab = await _open(world, context, proxy.url, session_id)
    await tab.shows(" 20 ")
    answers: list[dict[str, Any]] = [
        {"status": 429, "headers": {"Retry-After": "1"}},
        {"status": 503},
    ]

    async def answer(route: Route) -> None:
        if answers:
            await route.fulfill(**answers.pop(0))
        else:
            await route.continue_()

    await tab.page.route("**/poll?*", answer)
    proxy.cut()
    await expect(tab.page.locator(_STATE)).to_have_attribute("data-state", "reconnecting")
    await tab.says("Live · WebSocket")
    assert answers == []
    await tab.finishes()


@pytest.mark.parametrize("way", ["websocket", "sse", "poll"])
async def test_a_deleted_conversation_says_so_and_asks_for_nothing_more(
    world: World, context: BrowserContext, proxy: Proxy, way: str
) -> None:
    await context.add_init_script(
        f"""localStorage.setItem("throughline.transport",
          JSON.stringify({{ way: "{way}", at: Date.now() }}))"""
    )
    session_id = await _asked(world, "/count 3 1")
    await _until_complete(world, session_id)
    tab = await _open(world, context, proxy.url, session_id)
    await expect(tab.page.locator(_STATE)).to_have_attribute("data-state", "live")
    await tab.page.evaluate(
        "session => fetch(`/api/sessions/${session}`, { method: 'DELETE' })", session_id
    )
    await expect(tab.page.locator("#main h1")).to_have_text("This conversation was deleted")
    await expect(tab.page.locator(_STATE)).to_have_attribute("data-state", "ended")
    proxy.seen.clear()
    await tab.page.evaluate("dispatchEvent(new Event('online'))")
    assert proxy.seen == []
    assert tab.complaints == []
