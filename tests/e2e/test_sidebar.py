"""The side bar in a browser: live in every tab, searched, drawn out on a narrow screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, expect

from tests.support.browser import running_browser, watch_console
from tests.support.nodes import Cluster, ask, messages, running_cluster

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

_LAST = "article.assistant >> nth=-1"
_NARROW = ViewportSize(width=360, height=740)


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


async def _finished(page: Page, answers: int) -> None:
    await expect(page.locator("article.assistant")).to_have_count(answers, timeout=20_000)
    await expect(page.locator("article.assistant.open")).to_have_count(0, timeout=30_000)


async def _conversation(cluster: Cluster, question: str) -> str:
    session_id: str = (await ask(cluster.web[0], question))["session_id"]
    return session_id


async def _looked_at(page: Page) -> None:
    """Show a tab: one that is hidden looks for what is new once it is shown."""
    await page.bring_to_front()


async def test_a_title_changes_in_every_tab(tmp_path: Path) -> None:
    """On the page of the conversation, in the lists of the others, in the window's own title."""
    async with _running(tmp_path) as (cluster, browser):
        session_id = await _conversation(cluster, "/echo hi")
        context = await browser.new_context()
        other, other_says = await _open(context, cluster)
        far, far_says = await _open(browser, cluster, f"/chat/{session_id}")
        page, says = await _open(context, cluster, f"/chat/{session_id}")
        await _finished(page, 1)

        await page.click("#title-menu > summary")
        await expect(page.locator("#new-title")).to_have_value("/echo hi")
        await page.fill("#new-title", "Mine & <yours>")
        await page.press("#new-title", "Enter")

        for window in (page, far):
            await expect(window.locator("#title")).to_have_text("Mine & <yours>")
            await expect(window).to_have_title("Mine & <yours> · Throughline")
        await expect(page.locator("#title-menu")).not_to_have_attribute("open", "")
        for window in (page, far, other):
            await _looked_at(window)
            entry = window.locator(f"#entry-{session_id} .name")
            await expect(entry).to_have_text("Mine & <yours>")
        assert says == other_says == far_says == []


async def test_a_title_that_is_refused_says_why(tmp_path: Path) -> None:
    async with _running(tmp_path) as (cluster, browser):
        session_id = await _conversation(cluster, "/echo hi")
        page, _ = await _open(browser, cluster, f"/chat/{session_id}?rename")
        await expect(page.locator("#new-title")).to_be_visible()
        await page.fill("#new-title", "   ")
        await page.press("#new-title", "Enter")
        await expect(page.locator("#rename-problem")).to_contain_text("title must not be empty")
        await expect(page.locator("#title")).to_have_text("/echo hi")


async def test_what_is_asked_elsewhere_moves_to_the_top(tmp_path: Path) -> None:
    async with _running(tmp_path) as (cluster, browser):
        old = await _conversation(cluster, "/echo old")
        await _conversation(cluster, "/echo new")
        context = await browser.new_context()
        watching, says = await _open(context, cluster)
        first = watching.locator(".list li >> nth=0")
        await expect(first).to_contain_text("/echo new")
        page, _ = await _open(context, cluster, f"/chat/{old}")
        await _finished(page, 1)
        await page.fill("#question", "/echo more")
        await page.press("#question", "Enter")
        await _finished(page, 2)
        await expect(page.locator(".list li >> nth=0")).to_contain_text("/echo old")
        await _looked_at(watching)
        await expect(first).to_contain_text("/echo old")
        assert says == []


async def test_another_conversation_is_deleted_and_comes_back(tmp_path: Path) -> None:
    """Deleted from the list, beside the one that is shown, which stays as it is."""
    async with _running(tmp_path) as (cluster, browser):
        kept = await _conversation(cluster, "/echo kept")
        gone = await _conversation(cluster, "/echo gone")
        page, says = await _open(browser, cluster, f"/chat/{kept}")
        await _finished(page, 1)
        await page.hover(f"#entry-{gone}")
        await page.click(f"#entry-{gone} summary")
        await page.click(f"#entry-{gone} .danger")
        await expect(page.locator(f"#entry-{gone}")).to_have_count(0)
        await expect(page.locator("#notices")).to_contain_text("“/echo gone” was deleted.")
        assert page.url.endswith(kept)
        await page.get_by_role("button", name="Undo").click()
        await page.wait_for_url(f"**/chat/{gone}")
        await expect(page.locator(_LAST)).to_contain_text("gone")
        await expect(page.locator(f"#entry-{gone}")).to_be_visible()
        assert says == []


async def test_a_conversation_is_deleted_while_it_answers_and_comes_back(tmp_path: Path) -> None:
    """Stopped at once, gone in the other tab, back in both with its text so far, and it goes on."""
    async with _running(tmp_path) as (cluster, browser):
        session_id = await _conversation(cluster, "/count 2000 20")
        context = await browser.new_context()
        other, other_says = await _open(context, cluster, f"/chat/{session_id}")
        page, says = await _open(context, cluster, f"/chat/{session_id}")
        for window in (page, other):
            await expect(window.locator(_LAST)).to_contain_text(" 10 ", timeout=10_000)
        await page.click("#title-menu > summary")
        await page.click("#title-menu .danger")
        await page.wait_for_url("**/?deleted=*")
        await expect(other.get_by_role("heading", level=1, name="was deleted")).to_be_visible()
        assert (await page.request.get(f"{cluster.web[0].url}/chat/{session_id}")).status == 404

        await page.get_by_role("button", name="Undo").click()
        await page.wait_for_url(f"**/chat/{session_id}")
        for window in (page, other):
            await _looked_at(window)
            await expect(window.locator(_LAST)).to_contain_text("Stopped.")
            await expect(window.locator("#connection")).to_have_attribute("data-state", "live")
        stored = (await messages(cluster.web[0], session_id))[-1]
        assert stored["content"].startswith("1 2 3 4 5 6 7 8 9 10")
        assert await page.locator(f"{_LAST} >> .text").inner_text() == stored["content"].rstrip()
        await page.fill("#question", "/echo on")
        await page.press("#question", "Enter")
        for window in (page, other):
            await _finished(window, 2)
            await expect(window.locator(_LAST)).to_contain_text("on")
        assert says == other_says == []


async def test_search_finds_titles_and_messages_and_leads_there(tmp_path: Path) -> None:
    """As one types; an old message is shown in its place, marked, and not scrolled away."""
    async with _running(tmp_path, DEMO_DELAY_MS="3") as (cluster, browser):
        session_id = await _conversation(cluster, "/echo Zürich an der Limmat")
        page, says = await _open(browser, cluster, f"/chat/{session_id}")
        await _finished(page, 1)
        for number in range(3):
            await page.fill("#question", "/markdown")
            await page.press("#question", "Enter")
            await _finished(page, number + 2)
        await page.locator("#wanted").press_sequentially("zürICH an")
        found = page.locator(".list .passage >> nth=-1")
        await expect(found).to_be_visible()
        await expect(found.locator("mark")).to_have_text("Zürich an")
        await page.locator("#wanted").press_sequentially("x")
        await expect(page.locator(".list")).to_contain_text("Nothing found")
        await page.press("#wanted", "Backspace")
        await found.click()
        await page.wait_for_url("**#m-*")
        target = page.locator("article:target")
        await expect(target).to_be_in_viewport()
        await expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        await expect(target).to_be_in_viewport()
        await page.fill("#wanted", "")
        await expect(page.locator(f"#entry-{session_id}")).to_be_visible()
        assert says == []


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
async def test_on_a_narrow_screen_it_is_a_drawer(tmp_path: Path, scripts: bool) -> None:
    async with _running(tmp_path) as (cluster, browser):
        one = await _conversation(cluster, "/echo one")
        two = await _conversation(cluster, "/echo two and a title that is longer than any line")
        context = await browser.new_context(
            viewport=_NARROW, has_touch=True, is_mobile=True, java_script_enabled=scripts
        )
        page, says = await _open(context, cluster, f"/chat/{one}")
        link = page.locator(f"#entry-{two} a >> nth=0")
        await expect(page.locator("#drawer")).to_be_visible()
        await expect(link).not_to_be_visible()
        await page.tap("#drawer > summary")
        await expect(link).to_be_visible()
        # What is beside it closes it.
        await page.touchscreen.tap(350, 500)
        await expect(link).not_to_be_visible()
        await page.tap("#drawer > summary")
        await link.tap()
        await page.wait_for_url(f"**/chat/{two}")
        await expect(page.locator("#title")).to_contain_text("/echo two")
        await page.tap("#title-menu > summary")
        await expect(page.locator("#title-menu .danger")).to_be_in_viewport(ratio=1)
        for part in ("#title-menu > summary", "#drawer > summary", "#send"):
            box = await page.locator(part).bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 44, part
        assert says == []


async def test_nothing_is_wider_than_the_screen(tmp_path: Path) -> None:
    async with _running(tmp_path) as (cluster, browser):
        session_id = await _conversation(cluster, "/markdown")
        long = await _conversation(cluster, f"/echo {'w' * 300}")
        for width in (360, 768, 1280):
            context = await browser.new_context(viewport={"width": width, "height": 740})
            page, _ = await _open(context, cluster)
            for path in ("/", f"/chat/{session_id}", f"/chat/{long}?rename", "/?q=w", "/nothing"):
                await page.goto(f"{cluster.web[0].url}{path}")
                wide = await page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, path
            await context.close()


async def test_without_a_script_all_of_it_works_by_forms(tmp_path: Path) -> None:
    async with _running(tmp_path) as (cluster, browser):
        session_id = await _conversation(cluster, "/echo Straße")
        context = await browser.new_context(java_script_enabled=False)
        page, _ = await _open(context, cluster)
        await page.hover(f"#entry-{session_id}")
        await page.click(f"#entry-{session_id} summary")
        await page.click(f"#entry-{session_id} >> text=Rename")
        await page.fill("#new-title", "Ein Weg")
        await page.press("#new-title", "Enter")
        await expect(page.locator("#title")).to_have_text("Ein Weg")
        await page.fill("#wanted", "STRASSE")
        await page.press("#wanted", "Enter")
        await page.click(".list .passage >> nth=0")
        await expect(page.locator("article:target")).to_be_in_viewport()
        await page.click("#title-menu > summary")
        await page.click("#title-menu .danger")
        await expect(page.locator("#notices")).to_contain_text("“Ein Weg” was deleted.")
        await page.get_by_role("button", name="Undo").click()
        await expect(page.locator("#title")).to_have_text("Ein Weg")


async def test_a_conversation_gets_its_title_from_its_first_question(tmp_path: Path) -> None:
    """One that was begun without a question, open in two browsers."""
    async with _running(tmp_path) as (cluster, browser):
        page, says = await _open(browser, cluster)
        made = await page.request.post(
            f"{cluster.web[0].url}/api/sessions", data={"session_id": "begun"}
        )
        assert made.status == 201
        far, far_says = await _open(browser, cluster, "/chat/begun")
        await page.goto(f"{cluster.web[0].url}/chat/begun")
        await expect(page.locator("#title")).to_have_text("Untitled")
        await page.fill("#question", "/echo named")
        await page.press("#question", "Enter")
        for window in (page, far):
            await _looked_at(window)
            await expect(window.locator("#title")).to_have_text("/echo named")
            await expect(window).to_have_title("/echo named · Throughline")
            await expect(window.locator("#entry-begun .name")).to_have_text("/echo named")
        assert says == far_says == []


async def test_an_offer_to_take_a_deletion_back_ends_in_time(tmp_path: Path) -> None:
    async with _running(tmp_path, DELETE_UNDO_SECONDS="2") as (cluster, browser):
        session_id = await _conversation(cluster, "/echo gone")
        page, _ = await _open(browser, cluster, f"/chat/{session_id}")
        await page.click("#title-menu > summary")
        await page.click("#title-menu .danger")
        await expect(page.locator("#notices")).to_contain_text("was deleted")
        await expect(page.locator("#notices .notice")).to_have_count(0)
