"""Takes the pictures of the main states into ``docs/images``: light, dark, and 390 px wide.

Run it from the repository: ``.venv/bin/python -m scripts.screenshots``. It needs Chromium. With
names behind it (``chat found``) it takes only those.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from playwright.sync_api import Browser, Page, expect, sync_playwright

from scripts.own_server import running_server

_IMAGES: Final = Path(__file__).parent.parent / "docs" / "images"
_MAX_BYTES: Final = 200_000
_NARROW_MAX_WIDTH: Final = 600
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS: Final = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_QUESTIONS: Final = (
    "How do WebSockets compare with server-sent events?",
    "Count the commonest words of a text in Python",
    "A plan for the weekend",
    "What happens when I reload in the middle of an answer?",
    "A poem about the sea at night",
)
_STORY: Final = "Tell me a story about a lighthouse."
_SHOWN_CHARACTERS: Final = 430
_PATIENCE_MS: Final = 90_000


class Look(NamedTuple):
    """How a state is looked at."""

    suffix: str
    scheme: Literal["light", "dark"]
    width: int
    height: int

    @property
    def is_narrow(self) -> bool:
        """Whether the side bar is a drawer."""
        return self.width < _NARROW_MAX_WIDTH


_LOOKS: Final = (
    Look("", "light", 1200, 800),
    Look("-dark", "dark", 1200, 800),
    Look("-narrow", "light", 390, 844),
)


class Scene(NamedTuple):
    """What is on the server for the pictures."""

    url: str
    sessions: dict[str, str]
    """Conversations by their first question."""

    def chat(self, question: str) -> str:
        """Give the address of a conversation."""
        return f"{self.url}/chat/{self.sessions[question]}"


def main() -> None:
    """Play the conversations, then lead a fresh page to each state and take it in each look."""
    wanted = sys.argv[1:] or list(_STATES)
    browser_path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if browser_path is None:
        raise SystemExit("Chromium is missing: install the package «chromium»")
    _IMAGES.mkdir(parents=True, exist_ok=True)
    with running_server() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=_ARGUMENTS)
        if "first-visit" in wanted:
            _take_all(browser, Scene(address, {}), "first-visit")
        scene = _play(browser, address)
        for name in wanted:
            if name != "first-visit":
                _take_all(browser, scene, name)
        browser.close()


def _take_all(browser: Browser, scene: Scene, name: str) -> None:
    for look in _LOOKS:
        with browser.new_context(
            viewport={"width": look.width, "height": look.height},
            color_scheme=look.scheme,
            reduced_motion="reduce",
            has_touch=look.is_narrow,
            is_mobile=look.is_narrow,
        ) as context:
            page = context.new_page()
            if _STATES[name](page, scene, look) is False:
                continue
            file = _IMAGES / f"{name}{look.suffix}.png"
            taken = page.screenshot()
            if len(taken) > _MAX_BYTES:
                raise SystemExit(f"{file.name} has {len(taken)} bytes, more than {_MAX_BYTES}")
            file.write_bytes(taken)


def _play(browser: Browser, address: str) -> Scene:
    """Ask everything at once, and wait until all but the story is answered."""
    with browser.new_context() as context:
        asked: dict[str, Any] = {}
        for question in _QUESTIONS:
            asked[question] = _ask(context, address, question)
        failed = _ask(context, address, "/fail 40")
        context.request.patch(
            f"{address}/api/sessions/{failed['session_id']}", data={"title": "The tides at Whitby"}
        )
        page = context.new_page()
        for one in (*asked.values(), failed):
            page.goto(f"{address}/chat/{one['session_id']}")
            expect(page.locator("article.open")).to_have_count(0, timeout=_PATIENCE_MS)
        story = _ask(context, address, "hello")
        page.goto(f"{address}/chat/{story['session_id']}")
        expect(page.locator("article.open")).to_have_count(0, timeout=_PATIENCE_MS)
    sessions = {question: one["session_id"] for question, one in asked.items()}
    return Scene(
        address,
        sessions | {"failed": failed["session_id"], _STORY: story["session_id"]},
    )


def _ask(context: Any, address: str, question: str, **fields: str) -> dict[str, Any]:
    answer = context.request.post(f"{address}/api/chat", data={"message": question, **fields})
    if not answer.ok:
        raise RuntimeError(answer.text())
    asked: dict[str, Any] = answer.json()
    return asked


def _open(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")


def _first_visit(page: Page, scene: Scene, _: Look) -> None:
    page.goto(scene.url)


def _home(page: Page, scene: Scene, _: Look) -> None:
    page.goto(scene.url)


def _chat(page: Page, scene: Scene, _: Look) -> None:
    """Half-way through the second answer."""
    _open(page, scene.chat(_STORY))
    answers = page.locator("article.assistant")
    if answers.count() == 1:
        page.get_by_label("Your question").fill(_STORY)
        page.get_by_role("button", name="Send").click()
    elif page.locator("article.assistant.open").count() == 0:
        answers.last.get_by_role("button", name="Regenerate").click()
        expect(page.locator("article.assistant.open")).to_have_count(1)
    enough = re.compile(rf"^.{{{_SHOWN_CHARACTERS}}}", re.DOTALL)
    expect(answers.nth(1)).to_have_text(enough, timeout=_PATIENCE_MS)


def _answer(page: Page, scene: Scene, _: Look) -> None:
    _open(page, scene.chat(_QUESTIONS[1]))
    page.evaluate("scrollTo(0, 0)")


def _table(page: Page, scene: Scene, _: Look) -> None:
    _open(page, scene.chat(_QUESTIONS[0]))
    page.evaluate("scrollTo(0, 0)")


def _failed(page: Page, scene: Scene, _: Look) -> None:
    _open(page, scene.chat("failed"))


def _found(page: Page, scene: Scene, look: Look) -> None:
    _open(page, scene.chat(_QUESTIONS[0]))
    if look.is_narrow:
        page.locator("#drawer summary").click()
    page.get_by_role("searchbox").fill("reload")
    expect(page.locator("#list mark").first).to_be_visible()


def _drawer(page: Page, scene: Scene, look: Look) -> bool:
    if not look.is_narrow:
        return False
    _open(page, scene.chat(_QUESTIONS[0]))
    page.locator("#drawer summary").click()
    expect(page.get_by_role("searchbox")).to_be_visible()
    return True


def _renaming(page: Page, scene: Scene, _: Look) -> None:
    _open(page, f"{scene.chat(_QUESTIONS[2])}?rename")


def _deleted(page: Page, scene: Scene, _: Look) -> None:
    asked = _ask(page.context, scene.url, "Something to forget")
    _open(page, f"{scene.url}/chat/{asked['session_id']}")
    page.locator("#title-menu summary").click()
    page.get_by_role("button", name="Delete conversation").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()


def _not_found(page: Page, scene: Scene, _: Look) -> None:
    page.goto(f"{scene.url}/chat/there-is-none")


def _reference(page: Page, scene: Scene, _: Look) -> None:
    page.goto(f"{scene.url}/schema")


_STATES: Final[dict[str, Callable[[Page, Scene, Look], object]]] = {
    "first-visit": _first_visit,
    "home": _home,
    "chat": _chat,
    "answer": _answer,
    "table": _table,
    "failed": _failed,
    "found": _found,
    "drawer": _drawer,
    "renaming": _renaming,
    "deleted": _deleted,
    "not-found": _not_found,
    "reference": _reference,
}
"""Leads a page to a state; one that gives False has no picture in that look."""


if __name__ == "__main__":
    main()
