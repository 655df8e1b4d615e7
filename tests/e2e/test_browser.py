"""The main job in a real browser: ask, reload in the middle, miss nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.support.browser import running_browser, watch_console
from tests.support.nodes import Cluster, ask, messages, running_cluster

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

_OPEN = "article.assistant.open"
_LAST = "article.assistant >> nth=-1"


def _count(last: int) -> str:
    return " ".join(str(number) for number in range(1, last + 1))


async def _open(browser: Browser, cluster: Cluster, path: str = "/") -> tuple[Page, list[str]]:
    page = await browser.new_page()
    complaints = watch_console(page)
    await page.goto(f"{cluster.web[0].url}{path}")
    return page, complaints


async def _shown(page: Page) -> str:
    return await page.locator(_LAST).locator(".text").evaluate("it => it.textContent") or ""


async def _finished(page: Page) -> None:
    await expect(page.locator(_OPEN)).to_have_count(0, timeout=30_000)
    await expect(page.locator("#send")).to_be_visible()


async def _session_id(page: Page) -> str:
    await page.wait_for_url("**/chat/*")
    return page.url.rsplit("/", 1)[1]


async def test_reload_in_the_middle_of_an_answer_misses_nothing(tmp_path: Path) -> None:
    """The text so far is in the first paint, and the rest goes on streaming."""
    async with (
        running_cluster(tmp_path, web=1, workers=1) as cluster,
        running_browser() as browser,
    ):
        page, complaints = await _open(browser, cluster)
        await page.fill("#question", "/count 150 20")
        await page.press("#question", "Enter")
        session_id = await _session_id(page)
        for number in (20, 50, 80):
            await expect(page.locator(_LAST)).to_contain_text(f" {number} ", timeout=20_000)
            before = await _shown(page)
            response = await page.reload()
            assert response is not None
            # The very first bytes have it, before any script has run.
            assert before in await response.text()
            assert (await _shown(page)).startswith(before)
        await _finished(page)
        stored = (await messages(cluster.web[0], session_id))[-1]
        assert await _shown(page) == stored["content"] == _count(150)
        assert complaints == []


async def test_a_markdown_page_with_every_construct_ends_as_it_is_rendered_whole(
    tmp_path: Path,
) -> None:
    """Streamed block by block, over a reload in the middle: the same page as a rendering at once.

    What stands finished is left alone to the end, and with it what a reader has selected.
    """
    async with (
        running_cluster(tmp_path, web=1, workers=1, DEMO_DELAY_MS="3") as cluster,
        running_browser() as browser,
    ):
        page, complaints = await _open(browser, cluster)
        await page.fill("#question", "/markdown")
        await page.press("#question", "Enter")
        await _session_id(page)
        await expect(page.locator(f"{_LAST} >> h4")).to_have_count(1, timeout=20_000)
        await page.reload()
        await expect(page.locator(f"{_LAST} >> li >> nth=8")).to_be_visible(timeout=20_000)
        await page.locator(f"{_LAST} >> h4").evaluate(
            "it => { window.kept = it; getSelection().selectAllChildren(it); }"
        )
        await _finished(page)
        assert await page.evaluate("window.kept.isConnected")
        assert await page.evaluate("getSelection().toString()") == "Heading two: lists"
        streamed = await page.locator(_LAST).evaluate("it => it.outerHTML")
        await page.reload()
        assert await page.locator(_LAST).evaluate("it => it.outerHTML") == streamed
        for construct in ("h3", "table", "pre .t-k", ".task", "blockquote", ".footnotes"):
            assert await page.locator(_LAST).locator(construct).count(), construct
        assert complaints == []


async def test_an_answer_goes_on_with_nobody_watching(tmp_path: Path) -> None:
    """Close the tab, come back later: the whole answer is there."""
    async with (
        running_cluster(tmp_path, web=1, workers=1) as cluster,
        running_browser() as browser,
    ):
        page, _ = await _open(browser, cluster)
        await page.fill("#question", "/count 60 20")
        await page.press("#question", "Enter")
        session_id = await _session_id(page)
        await expect(page.locator(_LAST)).to_contain_text(" 5 ")
        await page.close()
        again, complaints = await _open(browser, cluster, f"/chat/{session_id}")
        await _finished(again)
        assert await _shown(again) == _count(60)
        assert complaints == []


async def test_two_windows_stream_the_same_answer_and_either_stops_it(tmp_path: Path) -> None:
    """Asked in one, seen in both, stopped in the other."""
    async with (
        running_cluster(tmp_path, web=1, workers=1) as cluster,
        running_browser() as browser,
    ):
        first = await ask(cluster.web[0], "/count 3 1")
        path = f"/chat/{first['session_id']}"
        one, one_says = await _open(browser, cluster, path)
        two, two_says = await _open(browser, cluster, path)
        await _finished(one)
        await one.fill("#question", "/count 1000 20")
        await one.press("#question", "Enter")
        await expect(one.locator(_LAST)).to_contain_text(" 10 ", timeout=10_000)
        await expect(two.locator(_LAST)).to_contain_text(" 10 ", timeout=10_000)
        await two.click("#stop")
        for page in (one, two):
            await _finished(page)
            await expect(page.locator(_LAST)).to_contain_text("Stopped.")
        stored = (await messages(cluster.web[0], first["session_id"]))[-1]
        assert stored["status"] == "cancelled"
        assert await _shown(one) == await _shown(two) == stored["content"]
        assert one_says == two_says == []


async def test_a_page_outlives_its_node(tmp_path: Path) -> None:
    """The node is killed and comes back on the same port: the page goes on by itself."""
    async with (
        running_cluster(tmp_path, web=1, workers=1) as cluster,
        running_browser() as browser,
    ):
        page, _ = await _open(browser, cluster)
        await page.fill("#question", "/count 300 20")
        await page.press("#question", "Enter")
        session_id = await _session_id(page)
        await expect(page.locator(_LAST)).to_contain_text(" 30 ", timeout=10_000)
        node = cluster.web[0]
        node.kill()
        connection = page.locator("#connection")
        await expect(connection).to_have_attribute("data-state", "reconnecting", timeout=10_000)
        await cluster.start_web("web-again", port=int(node.url.rsplit(":", 1)[1]))
        await _finished(page)
        stored = (await messages(cluster.web[-1], session_id))[-1]
        assert await _shown(page) == stored["content"] == _count(300)
