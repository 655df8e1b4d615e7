"""Models as a person meets them: choose one, read what it said, have it go on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, Page, expect

from tests.support import axe
from tests.support.browser import running_browser, watch_console
from tests.support.nodes import Cluster, ask, messages, running_cluster
from tests.support.scripted_model import DONE, ScriptedModel, finish, scripted_model, text

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

_LAST = "article.assistant >> nth=-1"
_NOTE = "The answer stopped at the model's limit on length."
_BEGUN = (text("The harbour was quiet, and the"), finish("length"), DONE)
_REST = (text(" boats"), text(" slept."), finish(), DONE)
_WHOLE = "The harbour was quiet, and the boats slept."
_THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_WIDTHS = (1280, 390)


@asynccontextmanager
async def _running(tmp_path: Path) -> AsyncIterator[tuple[Cluster, Browser, ScriptedModel]]:
    """Run the demo model, which is asked by default, beside one that stops at its limit once."""
    async with scripted_model(*_REST, first=[_BEGUN]) as server:
        listed = json.dumps(
            [
                {
                    "id": "short",
                    "base_url": server.base_url,
                    "name": "Harbour Writer 7B Instruct",
                    "continues": True,
                }
            ]
        )
        async with (
            running_cluster(
                tmp_path, web=1, workers=1, MODELS=listed, MODEL_DEFAULT="demo"
            ) as cluster,
            running_browser() as browser,
        ):
            yield cluster, browser, server


async def _finished(page: Page, answers: int) -> None:
    await expect(page.locator("article.assistant")).to_have_count(answers, timeout=20_000)
    await expect(page.locator("article.assistant.open")).to_have_count(0, timeout=30_000)
    await expect(page.locator("#send")).to_be_visible()


async def test_an_answer_that_the_models_limit_ended_goes_on_where_it_stopped(
    tmp_path: Path,
) -> None:
    async with _running(tmp_path) as (cluster, browser, server):
        context = await browser.new_context(reduced_motion="reduce")
        page = await context.new_page()
        complaints = watch_console(page)
        await page.goto(cluster.web[0].url)
        choice = page.get_by_label("Model")
        await expect(choice).to_have_value("demo")
        await choice.select_option(label="Harbour Writer 7B Instruct")
        await page.fill("#question", "How was the harbour?")
        await page.press("#question", "Enter")
        await page.wait_for_url("**/chat/*")
        await _finished(page, 1)
        await expect(choice).to_have_value("short")
        await expect(page.locator(f"{_LAST} >> .note")).to_have_text(_NOTE)
        await expect(page.locator(f"{_LAST} >> .by")).to_have_text("Harbour Writer 7B Instruct")
        await expect(page.get_by_role("button", name="Regenerate")).to_be_visible()

        found = []
        for width in _WIDTHS:
            await page.set_viewport_size({"width": width, "height": 800})
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            for theme in _THEMES:
                await page.emulate_media(color_scheme=theme)
                found += [f"{width} {theme}: {one}" for one in await axe.violations(page)]
                await page.screenshot(path=tmp_path / f"stopped-{width}-{theme}.png")
        assert found == []

        other = await context.new_page()
        await other.goto(page.url)
        go_on = page.get_by_role("button", name="Go on")
        await go_on.focus()
        await page.keyboard.press("Enter")
        for shown in (page, other):
            await expect(shown.locator(f"{_LAST} >> .text")).to_have_text(_WHOLE, timeout=20_000)
            await _finished(shown, 1)
            await expect(shown.locator(f"{_LAST} >> .note")).to_have_count(0)
            await expect(shown.get_by_role("button", name="Go on")).to_have_count(0)
        (_, stored) = await messages(cluster.web[0], page.url.rsplit("/", 1)[1])
        assert (stored["content"], stored["status"], stored["error"]) == (_WHOLE, "complete", None)
        asked = server.received[-1].body["messages"]
        assert asked[-1] == {"role": "assistant", "content": "The harbour was quiet, and the"}

        # In the same conversation another model answers, and each says which one it was.
        await choice.select_option("demo")
        await page.fill("#question", "/echo on")
        await page.press("#question", "Enter")
        await _finished(page, 2)
        await expect(page.locator(".by")).to_have_text(["Harbour Writer 7B Instruct", "Demo"])
        await expect(choice).to_have_value("demo")
        await page.reload()
        await expect(choice).to_have_value("demo")
        assert complaints == []


async def test_the_choice_is_a_field_of_the_question(tmp_path: Path) -> None:
    """Escape in it stops no answer, and a question that failed is another one with another."""
    async with _running(tmp_path) as (cluster, browser, _):
        asked = await ask(cluster.web[0], "/count 2000 20")
        page = await browser.new_page()
        await page.goto(f"{cluster.web[0].url}/chat/{asked['session_id']}")
        await expect(page.locator(_LAST)).to_contain_text(" 10 ", timeout=10_000)
        choice = page.get_by_label("Model")
        await choice.press("Escape")
        await expect(page.locator(_LAST)).to_contain_text(" 60 ", timeout=10_000)
        await expect(page.locator("#stop")).to_be_visible()
        await page.press("#question", "Escape")
        await expect(page.locator("#send")).to_be_visible(timeout=10_000)

        await page.route("**/messages", lambda route: route.abort())
        await page.fill("#question", "/echo hi")
        await page.press("#question", "Enter")
        await expect(page.locator("#problem")).to_contain_text("cannot be reached")
        key = await page.input_value("#key")
        await choice.select_option("short")
        assert await page.input_value("#key") != key
        await expect(page.locator("#question")).to_have_value("/echo hi")


async def test_without_a_script_an_answer_goes_on_and_so_does_a_stopped_one(
    tmp_path: Path,
) -> None:
    async with _running(tmp_path) as (cluster, browser, _):
        node = cluster.web[0]
        context = await browser.new_context(
            java_script_enabled=False,
            has_touch=True,
            is_mobile=True,
            viewport={"width": 390, "height": 800},
        )
        page = await context.new_page()
        asked = await ask(node, "How was the harbour?", model="short")
        await page.goto(f"{node.url}/chat/{asked['session_id']}")
        # The page looks again by itself while an answer is written.
        go_on = page.get_by_role("button", name="Go on")
        await expect(go_on).to_be_visible(timeout=20_000)
        await expect(page.get_by_text(_NOTE)).to_be_visible()
        await go_on.click()
        await expect(page.locator(f"{_LAST} >> .text")).to_have_text(_WHOLE, timeout=20_000)

        await _finished(page, 1)
        choice = page.get_by_label("Model")
        box = await choice.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        await page.screenshot(path=tmp_path / "touch.png")
        await choice.select_option("demo")
        await page.fill("#question", "/count 300 20")
        await page.click("#send")
        await expect(page.locator("article.assistant")).to_have_count(2)
        await page.click("#stop")
        await expect(page.get_by_text("Stopped.")).to_be_visible(timeout=20_000)
        (*_, stopped) = await messages(node, asked["session_id"])
        await page.get_by_role("button", name="Go on").locator("visible=true").click()
        await expect(
            page.get_by_role("button", name="Regenerate").locator("visible=true")
        ).to_have_count(1, timeout=20_000)
        (*_, stored) = await messages(node, asked["session_id"])
        assert stored["content"] == " ".join(str(number) for number in range(1, 301))
        assert stored["content"].startswith(stopped["content"])
        assert stored["status"] == "complete"
