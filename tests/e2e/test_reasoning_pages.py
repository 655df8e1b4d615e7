"""What a model thinks, on the page: folded, streamed in, and left as its reader has it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.support import axe
from tests.support.browser import running_browser, watch_console
from tests.support.nodes import Node, ask, messages, running_cluster
from tests.support.scripted_model import DONE, Step, Until, finish, scripted_model, text, thought

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

_ANSWER = "article.assistant"
_THOUGHTS = f"{_ANSWER} details.reasoning"
_WAYS = {"websocket": "WebSocket", "sse": "SSE", "poll": "polling"}
_THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_FIRST = [f"Line {number}: <b>is it</b> *so*?\n\n" for number in range(60)]
_LATER = [f"Or {number}, perhaps?\r\n" for number in range(60)]
_WHOLE = "".join([*_FIRST, *_LATER])


async def _open(browser: Browser, url: str, way: str) -> Page:
    context = await browser.new_context(viewport={"width": 1000, "height": 700})
    await context.add_init_script(
        f"""localStorage.setItem("throughline.transport",
          JSON.stringify({{ way: "{way}", at: Date.now() }}))"""
    )
    page = await context.new_page()
    await page.goto(url)
    await expect(page.locator("#connection")).to_have_text(f"Live · {_WAYS[way]}", timeout=20_000)
    return page


async def _shows(details: Locator, thoughts: str) -> None:
    """Wait until the thoughts are there, to the last character."""
    await details.page.wait_for_function(
        "([shown, expected]) => shown.textContent === expected",
        arg=[await details.locator(".thoughts").element_handle(), thoughts],
        timeout=30_000,
    )


async def _article(page: Page) -> Any:
    """Give the answer's article as it is, with its thoughts folded."""
    return await page.locator(_ANSWER).evaluate(
        """article => {
          const copy = article.cloneNode(true);
          for (const details of copy.querySelectorAll("details")) details.open = false;
          return copy.outerHTML;
        }"""
    )


async def _text_of(node: Node, page: Page) -> tuple[str, str | None]:
    stored = (await messages(node, page.url.rsplit("/", 1)[1]))[-1]
    return stored["content"], stored["reasoning"]


async def test_thoughts_are_folded_and_stay_as_their_reader_has_them(tmp_path: Path) -> None:
    """On each transport, from the first thought to a fresh load of the final answer."""
    more, says, ends = asyncio.Event(), asyncio.Event(), asyncio.Event()
    steps: tuple[Step, ...] = (
        *map(thought, _FIRST), Until(more), *map(thought, _LATER), Until(says), text("It **is**"),
        Until(ends), text(" so."), finish(), DONE,
    )  # fmt: skip
    async with scripted_model(*steps) as server:
        listed = json.dumps([{"id": "thinker", "base_url": server.base_url}])
        async with (
            running_cluster(tmp_path, web=1, workers=1, MODELS=listed) as cluster,
            running_browser() as browser,
        ):
            (web,) = cluster.web
            asked = await ask(web, "Is it so?")
            url = f"{web.url}/chat/{asked['session_id']}"
            pages = [await _open(browser, url, way) for way in _WAYS]
            complaints = [watch_console(page) for page in pages]
            for page in pages:
                details = page.locator(_THOUGHTS)
                await expect(details.locator("summary")).to_have_text(
                    "Thinking …", use_inner_text=True
                )
                await expect(details).to_have_js_property("open", False)
                await expect(details.locator(".thoughts")).to_be_hidden()
                await _shows(details, "".join(_FIRST))
                await details.locator("summary").focus()
                await page.keyboard.press("Enter")
                await expect(details.locator(".thoughts")).to_be_visible()
                # Who reads is not at the end, and is left where they are.
                await page.evaluate("scrollTo(0, 300)")
                await page.wait_for_function("scrollY === 300")

            more.set()
            for page in pages:
                await _shows(page.locator(_THOUGHTS), _WHOLE)
                await expect(page.locator(f"{_THOUGHTS} > summary")).to_have_text(
                    "Thinking …", use_inner_text=True
                )
            says.set()
            for page in pages:
                await expect(page.locator(f"{_ANSWER} .text strong")).to_have_text("is")
                await expect(page.locator(f"{_ANSWER}.open summary")).to_have_text(
                    "Thoughts", use_inner_text=True
                )
            ends.set()
            for page, complained in zip(pages, complaints, strict=True):
                await expect(page.locator(f"{_ANSWER}.open")).to_have_count(0, timeout=20_000)
                details = page.locator(_THOUGHTS)
                await expect(details).to_have_js_property("open", True)
                await _shows(details, _WHOLE)
                assert await page.evaluate("scrollY") == 300
                assert await _text_of(web, page) == ("It **is** so.", _WHOLE)
                assert complained == []
                shown = await _article(page)
                await page.reload()
                await expect(details).to_have_js_property("open", False)
                assert await _article(page) == shown
            await _a_look_at_it(pages[0])
            await _without_javascript(browser, url)
            copied = await pages[0].request.get(
                f"{web.url}/chat/messages/{asked['assistant_message']['message_id']}/text"
            )
            assert await copied.text() == "It **is** so."


async def _a_look_at_it(page: Page) -> None:
    """Open and folded, in either theme, on either width: it fits, and no rule is violated."""
    found = []
    for width in (1280, 390):
        await page.set_viewport_size({"width": width, "height": 800})
        for theme in _THEMES:
            await page.emulate_media(color_scheme=theme)
            await page.locator(f"{_THOUGHTS} > summary").click()
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            found += [f"{width} {theme}: {one}" for one in await axe.violations(page)]
    assert found == []
    # Nothing of it is read out as it comes.
    live = "[aria-live], [role=status], [role=alert], [role=log]"
    assert await page.locator(f":is({live}) .reasoning").count() == 0


async def _without_javascript(browser: Browser, url: str) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(url)
    await expect(page.locator(f"{_THOUGHTS} .thoughts")).to_be_hidden()
    await page.locator(f"{_THOUGHTS} > summary").click()
    await expect(page.locator(f"{_THOUGHTS} .thoughts")).to_be_visible()


async def test_an_answer_that_starts_over_takes_its_thoughts_along(tmp_path: Path) -> None:
    """And one without any shows no place for them, before and after."""
    async with (
        running_cluster(tmp_path, web=1, workers=1) as cluster,
        running_browser() as browser,
    ):
        (web,) = cluster.web
        asked = await ask(web, "/think 5 3 0")
        page = await _open(browser, f"{web.url}/chat/{asked['session_id']}", "websocket")
        complaints = watch_console(page)
        await expect(page.locator(f"{_ANSWER} .text")).to_have_text("1 2 3")
        await page.locator(f"{_THOUGHTS} > summary").click()
        await page.fill("#question", "/count 2 0")
        await page.press("#question", "Enter")
        await expect(page.locator(f"{_ANSWER} >> nth=1")).to_contain_text("1 2")
        await expect(page.locator(f"{_ANSWER}.open")).to_have_count(0)
        await expect(page.locator(_THOUGHTS)).to_have_count(1)
        await page.get_by_role("button", name="Regenerate").click()
        await expect(page.locator(f"{_ANSWER} >> nth=1")).to_have_attribute("data-attempt", "3")
        await expect(page.locator(f"{_ANSWER}.open")).to_have_count(0)
        await expect(page.locator(_THOUGHTS)).to_have_count(1)
        await expect(page.locator(_THOUGHTS)).to_have_js_property("open", True)
        assert complaints == []
