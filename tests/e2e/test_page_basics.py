"""What a page promises before anything works on it: weight, origin, first paint, width."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from tests.support.browser import running_browser, watch_console
from tests.support.nodes import ask
from tests.support.page_states import STATES, Stage, answered, running_stage
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

_MAX_BYTES = 100_000
_NARROW = (360, 320)
_ANSWERS = "article.assistant"
_OPEN = "article.assistant.open"

# Whatever reaches past the window's edge and is not inside something that scrolls by itself.
_SPILLS = """() => {
  const edge = document.documentElement.clientWidth + 0.5;
  const isHeld = (element) => {
    for (let it = element.parentElement; it; it = it.parentElement) {
      if (getComputedStyle(it).overflowX !== 'visible') return true;
    }
    return false;
  };
  const found = [...document.body.querySelectorAll('*')].filter((element) => {
    if (!element.checkVisibility({ visibilityProperty: true })) return false;
    const box = element.getBoundingClientRect();
    return box.width > 1 && (box.right > edge || box.left < -0.5) && !isHeld(element);
  }).map((element) => element.outerHTML.slice(0, 120));
  const width = document.documentElement.scrollWidth;
  return width > edge ? [...found, `the page is ${width} wide`] : found;
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with running_stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    async with await browser.new_context() as context:
        yield await context.new_page()


@pytest_asyncio.fixture(loop_scope="module")
async def plain(browser: Browser) -> AsyncIterator[Page]:
    """Give a page of a browser that runs no scripts."""
    async with await browser.new_context(java_script_enabled=False) as context:
        yield await context.new_page()


class TestWeight:
    @pytest.mark.parametrize("state", ["home", "failed", "complete"])
    async def test_page_style_scripts_and_icon_weigh_under_100_kb_as_sent(
        self, stage: Stage, page: Page, state: str
    ) -> None:
        """Counted at the socket, headers and all, with an empty cache."""
        debugger = await page.context.new_cdp_session(page)
        urls: dict[str, str] = {}
        sizes: dict[str, int] = {}

        def sent(request: dict[str, Any]) -> None:
            urls[request["requestId"]] = request["request"]["url"]

        def finished(request: dict[str, Any]) -> None:
            sizes[urls[request["requestId"]]] = request["encodedDataLength"]

        debugger.on("Network.requestWillBeSent", sent)
        debugger.on("Network.loadingFinished", finished)
        await debugger.send("Network.enable")
        await STATES[state](page, stage)
        # Chromium without a window does not ask for the icon.
        icon = await page.locator("link[rel=icon]").get_attribute("href")
        await page.evaluate("async (url) => { await (await fetch(url)).text(); }", icon)
        await eventually(lambda: any("icon.svg" in url for url in sizes), "the icon has come")
        assert any(".css?" in url for url in sizes)
        assert sum(".js?" in url for url in sizes) >= 2
        assert sum(sizes.values()) < _MAX_BYTES, sizes

    async def test_a_page_is_compressed_for_those_who_take_it_and_means_the_same(
        self, stage: Stage
    ) -> None:
        async with httpx.AsyncClient(base_url=stage.url, headers={"Accept": "text/html"}) as client:
            plain = await client.get("/schema", headers={"Accept-Encoding": "identity"})
            packed = await client.get("/schema", headers={"Accept-Encoding": "br;q=1, GZIP;q=0.5"})
            refused = await client.get("/schema", headers={"Accept-Encoding": "gzip;q=0, *"})
            head = await client.head("/schema", headers={"Accept-Encoding": "gzip"})
        assert plain.content == packed.content == refused.content
        assert packed.headers["content-encoding"] == head.headers["content-encoding"] == "gzip"
        assert head.headers["content-length"] == packed.headers["content-length"]
        assert int(packed.headers["content-length"]) < len(plain.content) / 3
        for answer in (plain, refused):
            assert "content-encoding" not in answer.headers
            assert int(answer.headers["content-length"]) == len(answer.content)
        for answer in (plain, packed, refused, head):
            assert "Accept-Encoding" in answer.headers["vary"]

    @pytest.mark.parametrize(
        ("asked_by", "is_packed"),
        [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False)],
    )
    async def test_another_site_learns_nothing_from_how_well_a_page_compresses(
        self, stage: Stage, asked_by: str, *, is_packed: bool
    ) -> None:
        headers = {"Accept": "text/html", "Sec-Fetch-Site": asked_by}
        async with httpx.AsyncClient(base_url=stage.url, headers=headers) as client:
            answer = await client.get("/")
        assert ("content-encoding" in answer.headers) == is_packed
        assert "Sec-Fetch-Site" in answer.headers["vary"]

    async def test_what_is_small_or_no_page_or_a_stream_goes_as_it_is(self, stage: Stage) -> None:
        """A stream's first bytes come while it is open; nothing gathers them to press them."""
        async with httpx.AsyncClient(base_url=stage.url, timeout=10) as client:
            listed = await client.get("/api/sessions")
            events = f"/api/sessions/{stage.streaming}/events"
            async with client.stream(
                "GET", events, headers={"Accept": "text/event-stream"}
            ) as stream:
                first = await anext(stream.aiter_raw())
        assert first.startswith(b"retry: ")
        for answer in (listed, stream):
            assert "content-encoding" not in answer.headers

    async def test_a_large_page_is_whole_after_it(self, stage: Stage) -> None:
        """One that a thread compresses."""
        node = stage.cluster.web[0]
        asked = await ask(node, "/echo " + " ".join(f"**{number}**" for number in range(550)))
        await answered(node, asked)
        for _ in range(3):
            question, session_id = asked["user_message"]["content"], asked["session_id"]
            asked = await ask(node, question, session_id=session_id)
            await answered(node, asked)
        async with httpx.AsyncClient(base_url=stage.url) as client:
            path = f"/chat/{asked['session_id']}"
            packed = await client.get(path)
        assert len(packed.content) > 64 * 1024
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.text.rstrip().endswith("</html>")
        assert len(gzip.compress(packed.content, 9)) > int(packed.headers["content-length"]) * 0.85


class TestOrigin:
    @pytest.mark.parametrize(
        "state",
        ["first visit", "complete", "streaming", "found", "restorable", "not found", "reference"],
    )
    async def test_nothing_comes_from_another_host_and_nothing_is_blocked(
        self, stage: Stage, page: Page, state: str
    ) -> None:
        complaints = watch_console(page)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        await STATES[state](page, stage)
        home = urlsplit(stage.url).netloc
        abroad = [url for url in asked if urlsplit(url).netloc not in {home, ""}]
        assert abroad == []
        assert len(asked) >= 2
        refused = [said for said in complaints if "Content Security Policy" in said]
        assert refused == []


class TestFirstPaint:
    @pytest.mark.parametrize("state", ["home", "complete", "failed"])
    async def test_it_waits_for_no_script(self, stage: Stage, page: Page, state: str) -> None:
        """The scripts are never answered; the page is there all the same."""

        async def hold(_: Route) -> None:
            """Leave the request open."""

        await page.route("**/*.js*", hold)
        path = {"home": "/", "complete": f"/chat/{stage.complete}"}.get(state)
        await page.goto(f"{stage.url}{path or f'/chat/{stage.failed}'}", wait_until="commit")
        await expect(page.locator("#question")).to_be_visible()
        await page.wait_for_function(
            "() => performance.getEntriesByName('first-contentful-paint').length > 0"
        )
        if state != "home":
            await expect(page.locator(f"{_ANSWERS} >> nth=0 >> .text")).to_be_visible()
        assert await page.evaluate("typeof htmx") == "undefined"


class TestWithoutScripts:
    async def test_ask_read_by_refreshing_ask_again_and_stop(
        self, stage: Stage, plain: Page
    ) -> None:
        await plain.goto(stage.url)
        await plain.fill("#question", "/count 60 30")
        await plain.click("#send")
        await plain.wait_for_url("**/chat/*")
        await expect(plain.locator(_ANSWERS)).to_contain_text(" 60", timeout=30_000)
        await expect(plain.locator(_OPEN)).to_have_count(0)
        await plain.fill("#question", "/count 100000 30")
        await plain.click("#send")
        await expect(plain.locator(_OPEN)).to_contain_text(" 20 ", timeout=30_000)
        await plain.click("#stop")
        await expect(plain.locator(f"{_ANSWERS} >> nth=1")).to_contain_text(
            "Stopped.", timeout=30_000
        )
        await expect(plain.locator("#send")).to_be_visible()

    async def test_write_an_answer_again_rename_search_delete_and_take_it_back(
        self, stage: Stage, plain: Page
    ) -> None:
        node = stage.cluster.web[0]
        asked = await ask(node, "/echo a quiet harbour")
        await answered(node, asked)
        await plain.goto(f"{stage.url}/chat/{asked['session_id']}")
        await expect(plain.locator(f"{_ANSWERS} .text")).to_have_text("a quiet harbour")
        await plain.get_by_role("button", name="Regenerate").click()
        await plain.wait_for_url(f"**/chat/{asked['session_id']}")
        await expect(plain.locator(_ANSWERS)).not_to_have_attribute("data-attempt", "1")
        await expect(plain.locator(_OPEN)).to_have_count(0, timeout=15_000)
        # What would do nothing is not offered.
        await expect(plain.locator("button.copy")).to_have_count(1)
        await expect(plain.locator("button.copy")).not_to_be_visible()

        await plain.locator("#title-menu > summary").click()
        await plain.get_by_label("Title", exact=True).fill("The harbour")
        await plain.get_by_role("button", name="Rename").click()
        await expect(plain.locator("#title")).to_have_text("The harbour")

        await plain.get_by_role("searchbox").fill("QUIET har")
        await plain.keyboard.press("Enter")
        await plain.wait_for_url("**/?q=*")
        await expect(plain.locator("#list mark").first).to_have_text("quiet har")
        await plain.locator("#list a", has=plain.locator("mark")).first.click()
        await expect(plain.locator("#title")).to_have_text("The harbour")

        await plain.locator("#title-menu > summary").click()
        await plain.get_by_role("button", name="Delete conversation").click()
        await expect(plain.get_by_text("“The harbour” was deleted.")).to_be_visible()
        async with httpx.AsyncClient(base_url=stage.url) as client:
            gone = await client.get(f"/api/sessions/{asked['session_id']}")
        assert gone.status_code == HTTPStatus.NOT_FOUND
        await plain.get_by_role("button", name="Undo").click()
        await expect(plain.locator("#title")).to_have_text("The harbour")
        await expect(plain.locator(f"{_ANSWERS} .text")).to_have_text("a quiet harbour")

    async def test_a_refusal_comes_back_with_what_was_typed(
        self, stage: Stage, plain: Page
    ) -> None:
        long = "too long " * 600
        await plain.goto(stage.url)
        await plain.fill("#question", long)
        await plain.click("#send")
        await expect(plain.locator("#problem p")).to_be_visible()
        assert await plain.input_value("#question") == long


@pytest.mark.parametrize("state", STATES)
async def test_a_narrow_window_never_scrolls_sideways(stage: Stage, page: Page, state: str) -> None:
    """At 320 px too: what a window of 1280 px is at four times the size (WCAG 1.4.10)."""
    await page.emulate_media(reduced_motion="reduce")
    await STATES[state](page, stage)
    for width in _NARROW:
        await page.set_viewport_size({"width": width, "height": 740})
        assert await page.evaluate(_SPILLS) == [], width
