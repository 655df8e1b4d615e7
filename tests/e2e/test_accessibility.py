"""Every page and state, for people who see, hear, move or point in another way."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from tests.support import axe
from tests.support.browser import running_browser
from tests.support.nodes import ask
from tests.support.page_states import STATES, Stage, answered, running_stage

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

_THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_WIDTHS = (1280, 390)
_MAX_STOPS = 60
_LIVE = "[aria-live], [role=status], [role=alert], [role=log], output"
_LISTEN = f"""() => {{
  window.heard = [];
  const said = new Map();
  for (const region of document.querySelectorAll('{_LIVE}')) {{
    said.set(region, region.textContent.trim());
    new MutationObserver(() => {{
      const text = region.textContent.trim().replace(/\\s+/g, ' ');
      if (text && text !== said.get(region)) heard.push(text);
      said.set(region, text);
    }}).observe(region, {{ childList: true, characterData: true, subtree: true }});
  }}
}}"""

# Controls that are lower or narrower than a finger, and none of a text.
_SMALL = """() => [...document.querySelectorAll('a, button, summary, input, textarea')]
  .filter((it) => it.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && !it.closest('.text, .skip') && it.type !== 'hidden')
  .map((it) => [it, it.getBoundingClientRect()])
  .filter(([, { width, height }]) => Math.min(width, height) < 43.5)
  .map(([it, { width, height }]) => `${it.outerHTML.slice(0, 160)} ${width} x ${height}`)"""

# Where the focus is, and what is wrong with how it shows.
_STOP = """() => {
  const element = document.activeElement;
  if (element === document.body) return ['', ''];
  const name = element.getAttribute('aria-label') || element.textContent.trim().slice(0, 40)
    || element.placeholder || element.name || '';
  const told = `${element.localName} ${name} ${element.id || element.closest('[id]')?.id}`;
  if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
    return [told, 'is not visible'];
  const box = element.getBoundingClientRect();
  const isSeen = [0.1, 0.5, 0.9].some((part) => {
    const hit = document.elementFromPoint(
      box.left + Math.min(box.width, innerWidth) / 2, box.top + box.height * part);
    return hit && (element.contains(hit) || hit.contains(element));
  });
  if (!isSeen) return [told, `is covered or outside at ${JSON.stringify(box)}`];
  const look = () => [element, element.parentElement, element.parentElement.parentElement]
    .map((it) => {
      const { outline, borderColor, boxShadow } = getComputedStyle(it);
      return outline + borderColor + boxShadow;
    }).join();
  const focused = look();
  element.blur();
  const blurred = look();
  element.focus({ preventScroll: true });
  return [told, focused === blurred ? 'does not show the focus' : ''];
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
    async with await browser.new_context(reduced_motion="reduce") as context:
        yield await context.new_page()


@pytest.mark.parametrize("state", STATES)
async def test_no_rule_of_axe_is_violated_in_either_theme_at_either_width(
    stage: Stage, page: Page, state: str
) -> None:
    await STATES[state](page, stage)
    found = []
    for width in _WIDTHS:
        await page.set_viewport_size({"width": width, "height": 800})
        for theme in _THEMES:
            await page.emulate_media(color_scheme=theme)
            found += [f"{width} {theme}: {one}" for one in await axe.violations(page)]
    assert found == []


async def test_a_screen_reader_hears_of_an_answer_and_not_its_every_word(
    stage: Stage, page: Page
) -> None:
    """What is announced while an answer of 150 words is streamed."""
    asked = await ask(stage.cluster.web[0], "/echo hi")
    await answered(stage.cluster.web[0], asked)
    await stage.open(page, asked["session_id"])
    await page.evaluate(_LISTEN)
    await page.fill("#question", "/count 150 10")
    await page.press("#question", "Enter")
    await expect(page.locator("article.assistant >> nth=1")).to_contain_text(" 150")
    await expect(page.locator("#announcement")).to_have_text("The answer is complete.")
    heard = await page.evaluate("heard")
    assert heard[-2:] == ["An answer is being written.", "The answer is complete."]
    assert set(heard[:-2]) <= {"The question was sent."}
    assert len(heard) <= 3
    assert await page.evaluate(f"document.querySelectorAll('{_LIVE}').length") >= 2
    within = [f"{region.strip()} .message" for region in _LIVE.split(",")]
    assert await page.locator(", ".join(within)).count() == 0


async def test_nothing_moves_for_those_who_asked_for_it(stage: Stage, page: Page) -> None:
    """Neither the sign of an answer being written nor what opens and closes."""
    moving = "document.getAnimations().filter((it) => it.playState === 'running').length"
    await stage.open(page, stage.streaming)
    assert await page.evaluate(moving) == 0
    await page.set_viewport_size({"width": 390, "height": 800})
    await page.locator("#drawer summary").click()
    assert await page.evaluate(moving) == 0
    await page.emulate_media(reduced_motion="no-preference")
    await page.wait_for_function(f"{moving} > 0")


@pytest.mark.parametrize("width", _WIDTHS)
@pytest.mark.parametrize("state", ["home", "complete", "drawer open", "found", "restorable"])
async def test_every_stop_of_the_tabulator_is_seen(
    stage: Stage, page: Page, state: str, width: int
) -> None:
    """Each shows that it has the focus, and neither bar nor composer covers it (WCAG 2.4.7, 11)."""
    await STATES[state](page, stage)
    await page.set_viewport_size({"width": width, "height": 800})
    await page.evaluate("document.body.tabIndex = -1; document.body.focus(); scrollTo(0, 0)")
    stops: list[str] = []
    for _ in range(_MAX_STOPS):
        await page.keyboard.press("Tab")
        name, fault = await page.evaluate(_STOP)
        if not name or name in stops:
            break
        assert not fault, f"{name} after {stops[-3:]}: {fault}"
        stops.append(name)
    assert "Skip to the content" in stops[0]
    assert "Throughline" in " ".join(stops[:3])
    assert len(stops) >= 3


@pytest.mark.parametrize("state", ["home", "complete", "failed", "drawer open", "restorable"])
async def test_a_finger_finds_every_control(stage: Stage, browser: Browser, state: str) -> None:
    """44 px where the pointer is coarse; links in running text are as high as their line."""
    async with await browser.new_context(
        viewport={"width": 390, "height": 800},
        has_touch=True,
        is_mobile=True,
        reduced_motion="reduce",
    ) as context:
        page = await context.new_page()
        await STATES[state](page, stage)
        assert await page.evaluate("matchMedia('(pointer: coarse)').matches")
        assert await page.evaluate(_SMALL) == []


async def _tab_to(page: Page, wanted: Locator) -> None:
    for _ in range(_MAX_STOPS):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("(it) => it === document.activeElement"):
            return
    raise AssertionError(f"the tabulator does not come to {wanted}")


async def test_a_whole_conversation_with_keys_alone(stage: Stage, page: Page) -> None:
    """From the first page: ask, stop, ask again, search, rename, delete, take it back."""
    keys = page.keyboard
    answers = page.locator("article.assistant")
    await page.goto(stage.url)
    await expect(page.locator("#question")).to_be_focused()
    await keys.type("/count 100000 20")
    await keys.press("Enter")
    await page.wait_for_url("**/chat/*")
    await expect(answers.first).to_contain_text(" 5 ")
    await keys.press("Escape")
    await expect(page.locator(".note")).to_contain_text("Stopped")

    await _tab_to(page, page.locator("#question"))
    await keys.type("/echo one")
    await keys.press("Shift+Enter")
    await keys.type("two")
    await keys.press("Enter")
    await expect(answers.nth(1)).to_have_text(re.compile(r"one\s+two"))
    await expect(page.locator("#question")).to_be_focused()

    await _tab_to(page, page.locator("a.skip"))
    await _tab_to(page, page.locator("#title-menu > summary"))
    await keys.press("Enter")
    await _tab_to(page, page.get_by_label("Title", exact=True))
    await keys.press("ControlOrMeta+A")
    await keys.type("By keys alone")
    await keys.press("Enter")
    await expect(page.locator("#title")).to_have_text("By keys alone")
    await expect(page.locator("nav [aria-current]")).to_have_text("By keys alone")

    await _tab_to(page, page.get_by_role("searchbox"))
    await keys.type("keys alo")
    await expect(page.locator("#list mark").first).to_have_text("keys alo")
    await _tab_to(page, page.locator("#list a").first)
    await keys.press("Enter")
    await expect(page.locator("#title")).to_have_text("By keys alone")

    await _tab_to(page, page.locator("#title-menu > summary"))
    await keys.press("Enter")
    await _tab_to(page, page.get_by_role("button", name="Delete conversation"))
    await keys.press("Enter")
    await expect(page.get_by_text("“By keys alone” was deleted.")).to_be_visible()
    await _tab_to(page, page.get_by_role("button", name="Undo"))
    await keys.press("Enter")
    await expect(page.locator("#title")).to_have_text("By keys alone")
    await expect(answers).to_have_count(2)
