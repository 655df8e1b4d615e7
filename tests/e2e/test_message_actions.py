"""What a person does with a question and its answer: copy, ask again, stop, leave half-written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.support.browser import running_browser, watch_console
from tests.support.nodes import Cluster, ask, messages, running_cluster

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

_LAST = "article.assistant >> nth=-1"


@asynccontextmanager
async def _running(tmp_path: Path, **settings: str) -> AsyncIterator[tuple[Cluster, Browser]]:
    async with (
        running_cluster(tmp_path, web=1, workers=1, **settings) as cluster,
        running_browser() as browser,
    ):
        yield cluster, browser


async def _open(
    within: Browser | BrowserContext, cluster: Cluster, path: str = "/"
) -> tuple[Page, list[str]]:
    page = await within.new_page()
    complaints = watch_console(page)
    await page.goto(f"{cluster.web[0].url}{path}")
    return page, complaints


async def _ask(page: Page, question: str) -> None:
    await page.fill("#question", question)
    await page.press("#question", "Enter")


async def _finished(page: Page, answers: int) -> None:
    await expect(page.locator("article.assistant")).to_have_count(answers, timeout=20_000)
    await expect(page.locator("article.assistant.open")).to_have_count(0, timeout=30_000)
    await expect(page.locator("#send")).to_be_visible()


async def _clipboard(page: Page) -> str:
    text: str = await page.evaluate("navigator.clipboard.readText()")
    return text


async def test_an_answer_is_copied_as_it_was_written(tmp_path: Path) -> None:
    """Markdown, not what it looks like; a block of code as code, while it streams and after."""
    async with _running(tmp_path, DEMO_DELAY_MS="3") as (cluster, browser):
        context = await browser.new_context()
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        page, complaints = await _open(context, cluster)
        await _ask(page, "/markdown")
        code = page.locator(f"{_LAST} >> .code >> nth=0")
        await expect(code).to_be_visible(timeout=20_000)
        await page.click(f"{_LAST} >> .code >> nth=0 >> .copy")
        # What is still being written is drawn anew with each piece, and its button with it.
        await page.wait_for_function("navigator.clipboard.readText()")
        first = await _clipboard(page)
        await _finished(page, 1)
        assert (await code.locator("code").inner_text()).startswith(first.strip())

        await page.click(f"{_LAST} >> .tools .copy")
        copied = page.locator(f"{_LAST} >> .tools .copy")
        await expect(copied).to_have_attribute("data-outcome", "copied")
        await expect(page.locator("#announcement")).to_have_text("Copied.")
        session_id = page.url.rsplit("/", 1)[1]
        stored = (await messages(cluster.web[0], session_id))[-1]["content"]
        # The system's clipboard has its own idea of line ends.
        assert (await _clipboard(page)).splitlines() == stored.splitlines()
        await expect(copied).not_to_have_attribute("data-outcome", "copied")

        await page.reload()
        blocks = page.locator(f"{_LAST} >> .code")
        for at in range(await blocks.count()):
            await blocks.nth(at).locator(".copy").focus()
            await page.keyboard.press("Enter")
            await expect(blocks.nth(at).locator(".copy")).to_have_attribute(
                "data-outcome", "copied"
            )
            shown = await blocks.nth(at).locator("code").evaluate("it => it.textContent")
            assert (await _clipboard(page)).splitlines() == shown.splitlines()
        assert complaints == []


async def test_without_a_secure_origin_copying_works_all_the_same(tmp_path: Path) -> None:
    async with _running(tmp_path) as (cluster, browser):
        asked = await ask(cluster.web[0], "/echo plainly")
        context = await browser.new_context()
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        await context.add_init_script(
            "window.kept = navigator.clipboard;"
            "Object.defineProperty(navigator, 'clipboard', { value: undefined })"
        )
        page, _ = await _open(context, cluster, f"/chat/{asked['session_id']}")
        await _finished(page, 1)
        await page.click(f"{_LAST} >> .tools .copy")
        await expect(page.locator(f"{_LAST} >> .tools .copy")).to_have_attribute(
            "data-outcome", "copied"
        )
        assert await page.evaluate("window.kept.readText()") == "plainly"


async def test_an_answer_is_written_again_in_its_place(tmp_path: Path) -> None:
    """In every window, once, and only the latest one; a reload in between shows the same."""
    async with _running(tmp_path) as (cluster, browser):
        first = await ask(cluster.web[0], "/count 3 1")
        path = f"/chat/{first['session_id']}"
        one, one_says = await _open(browser, cluster, path)
        two, two_says = await _open(browser, cluster, path)
        await _finished(one, 1)
        await _ask(one, "/count 150 20")
        await _finished(one, 2)
        await _finished(two, 2)
        assert await one.locator(".again:visible").count() == 1

        await one.click(".again:visible button")
        await expect(one.locator("#stop")).to_be_visible()
        for page in (one, two):
            await expect(page.locator(_LAST)).to_have_class("message assistant open")
            await expect(page.locator(_LAST)).to_contain_text(" 20 ", timeout=10_000)
            assert " 150" not in await page.locator(_LAST).inner_text()
        await two.reload()
        for page in (one, two):
            await _finished(page, 2)
        stored = (await messages(cluster.web[0], first["session_id"]))[-1]
        assert stored["attempt"] > 1
        texts = [await page.locator(_LAST).locator(".text").inner_text() for page in (one, two)]
        assert texts == [stored["content"]] * 2
        assert one_says == two_says == []


async def test_a_failed_answer_says_so_and_is_tried_again(tmp_path: Path) -> None:
    async with _running(tmp_path) as (cluster, browser):
        page, complaints = await _open(browser, cluster)
        await _ask(page, "/fail 4")
        await _finished(page, 1)
        await expect(page.locator(_LAST)).to_contain_text("This answer failed")
        again = page.get_by_role("button", name="Try again")
        await again.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator(f"{_LAST} >> .note")).to_have_count(0)
        await _finished(page, 1)
        await expect(again).to_be_visible()
        assert complaints == []


async def test_escape_stops_the_answer_unless_something_is_open(tmp_path: Path) -> None:
    async with _running(tmp_path) as (cluster, browser):
        page, complaints = await _open(browser, cluster)
        await _ask(page, "/count 2000 20")
        await expect(page.locator(_LAST)).to_contain_text(" 10 ", timeout=10_000)
        await page.click("#title-menu > summary")
        await page.keyboard.press("Escape")
        await expect(page.locator("#title-menu")).not_to_have_attribute("open", "")
        await expect(page.locator("#title-menu > summary")).to_be_focused()
        await page.fill("#wanted", "x")
        await page.keyboard.press("Escape")
        await expect(page.locator(_LAST)).to_contain_text(" 40 ", timeout=10_000)
        await expect(page.locator("#stop")).to_be_visible()

        await page.focus("#question")
        await page.keyboard.press("Escape")
        await _finished(page, 1)
        await expect(page.locator(_LAST)).to_contain_text("Stopped.")
        await expect(page.get_by_role("button", name="Try again")).to_be_visible()
        await expect(page.locator("#question")).to_be_focused()
        assert complaints == []


async def test_who_works_with_keys_keeps_the_place(tmp_path: Path) -> None:
    """Send becomes Stop and Stop becomes Send, and the focus is not lost with the button."""
    async with _running(tmp_path) as (cluster, browser):
        asked = await ask(cluster.web[0], "/count 2000 20")
        page, _ = await _open(browser, cluster, f"/chat/{asked['session_id']}")
        await expect(page.locator(_LAST)).to_contain_text(" 5 ", timeout=10_000)
        await page.focus("#stop")
        await page.keyboard.press("Enter")
        await _finished(page, 1)
        await expect(page.locator("#question")).to_be_focused()
        # Shift+Enter begins a line, Enter sends.
        await page.keyboard.type("/echo one")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("two")
        await page.keyboard.press("Enter")
        await _finished(page, 2)
        await expect(page.locator("#question")).to_be_focused()
        assert await page.locator("article.user >> nth=-1").locator(".text").inner_text() == (
            "/echo one\ntwo"
        )
        # What is elsewhere stays there.
        await page.fill("#question", "/count 2000 20")
        await page.press("#question", "Enter")
        await expect(page.locator("#stop")).to_be_visible()
        await page.focus("#wanted")
        stopped = (await messages(cluster.web[0], asked["session_id"]))[-1]["message_id"]
        await page.request.post(f"{cluster.web[0].url}/api/chat/{stopped}/cancel")
        await _finished(page, 3)
        await expect(page.locator("#wanted")).to_be_focused()


async def test_a_half_written_question_outlives_the_page(tmp_path: Path) -> None:
    """Each conversation has its own; it goes when the server has the question, and not before."""
    async with _running(tmp_path) as (cluster, browser):
        context = await browser.new_context()
        asked = await ask(cluster.web[0], "/echo hi")
        page, _ = await _open(context, cluster, f"/chat/{asked['session_id']}")
        await _finished(page, 1)
        field = page.locator("#question")
        await field.press_sequentially("half of\n a thought".replace("\n", " "))
        await page.reload()
        await expect(field).to_have_value("half of  a thought")
        await page.goto(cluster.web[0].url)
        await expect(field).to_have_value("")
        await field.fill("/echo from the first page")
        await page.reload()
        await expect(field).to_have_value("/echo from the first page")

        # Refused, it stays; accepted, it goes.
        await page.goto(f"{cluster.web[0].url}/chat/{asked['session_id']}")
        await expect(field).to_have_value("half of  a thought")
        await field.fill("x" * 5001)
        await field.press("Enter")
        await expect(page.locator("#problem")).to_contain_text("at most 5000 characters")
        await page.reload()
        await expect(field).to_have_value("x" * 5001)
        await field.fill("/echo done")
        await field.press("Enter")
        await _finished(page, 2)
        await page.reload()
        await expect(field).to_have_value("")

        await page.goto(cluster.web[0].url)
        await expect(field).to_have_value("/echo from the first page")
        await field.press("Enter")
        await page.wait_for_url("**/chat/*")
        await page.goto(cluster.web[0].url)
        await expect(field).to_have_value("")


async def test_without_a_script_one_asks_again_and_sees_no_dead_button(tmp_path: Path) -> None:
    async with _running(tmp_path) as (cluster, browser):
        asked = await ask(cluster.web[0], "/fail 4")
        context = await browser.new_context(java_script_enabled=False)
        page, _ = await _open(context, cluster, f"/chat/{asked['session_id']}")
        await expect(page.get_by_role("button", name="Try again")).to_be_visible(timeout=20_000)
        assert await page.locator(".copy:visible").count() == 0
        await page.get_by_role("button", name="Try again").click()
        await page.wait_for_url(f"**/chat/{asked['session_id']}")
        await expect(page.get_by_role("button", name="Try again")).to_be_visible(timeout=20_000)
        stored = (await messages(cluster.web[0], asked["session_id"]))[-1]
        assert stored["attempt"] > 1
