"""Takes the README's pictures of the page, light and dark, in the middle of an answer.

Run it from the repository: ``.venv/bin/python -m scripts.screenshot``. It needs Chromium.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from scripts.own_server import running_server

_IMAGES = Path(__file__).parent.parent / "docs" / "images"
_MAX_BYTES = 150_000
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_FIRST = "hello"
_SECOND = "Tell me a story about a lighthouse."
_SHOWN_CHARACTERS = 430
_PATIENCE_MS = 60_000


def main() -> None:
    """Ask twice, and take both pictures while the second answer is being written."""
    browser_path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if browser_path is None:
        raise SystemExit("Chromium is missing: install the package «chromium»")
    _IMAGES.mkdir(parents=True, exist_ok=True)
    with running_server() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto(address)
        _ask(page, _FIRST)
        page.wait_for_url("**/chat/*")
        answers = page.locator("article.assistant")
        expect(answers).to_have_count(1, timeout=_PATIENCE_MS)
        expect(page.locator("article.assistant.open")).to_have_count(0, timeout=_PATIENCE_MS)
        _ask(page, _SECOND)
        expect(answers).to_have_count(2, timeout=_PATIENCE_MS)
        enough = re.compile(rf"^.{{{_SHOWN_CHARACTERS}}}", re.DOTALL)
        expect(answers.last).to_have_text(enough, timeout=_PATIENCE_MS)
        for name, scheme in (("chat.png", "light"), ("chat-dark.png", "dark")):
            _take(page, _IMAGES / name, dark=scheme == "dark")
        browser.close()


def _ask(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def _take(page: Page, file: Path, *, dark: bool) -> None:
    page.emulate_media(color_scheme="dark" if dark else "light", reduced_motion="reduce")
    taken = page.screenshot()
    if len(taken) > _MAX_BYTES:
        raise SystemExit(f"{file.name} has {len(taken)} bytes, more than {_MAX_BYTES}")
    file.write_bytes(taken)


if __name__ == "__main__":
    main()
