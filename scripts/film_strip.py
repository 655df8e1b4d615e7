"""Takes a strip of pictures of a real answer into ``docs/images/film-strip.png``.

A small real model on this machine (``throughline up --model local``) is asked, stopped in the
middle and told to go on. Run it from the repository: ``.venv/bin/python -m scripts.film_strip``.
It needs Chromium, and the weights (``make run MODEL=local`` says how large they are).
"""

from __future__ import annotations

import base64
import html
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from scripts.own_server import running_server

_FILE: Final = Path(__file__).parent.parent / "docs" / "images" / "film-strip.png"
_MAX_BYTES: Final = 500_000
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS: Final = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_QUESTION: Final = "How does a lighthouse help ships at night?"
_WIDTH, _HEIGHT = 400, 640
_FRAMES_IN_A_ROW: Final = 3
_STREAMED_CHARACTERS: Final = 160
_STOPPED_CHARACTERS: Final = 260
_GONE_ON_CHARACTERS: Final = 120
_PATIENCE_MS: Final = 120_000
_LOOK_MS: Final = 20
_MOST_TAKES: Final = 8


class Frame(NamedTuple):
    """One picture and what it shows."""

    caption: str
    picture: bytes


def main() -> None:
    """Ask, stop, go on; then lay the pictures side by side."""
    browser_path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if browser_path is None:
        raise SystemExit("Chromium is missing: install the package «chromium»")
    with running_server("--model", "local") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=_ARGUMENTS)
        with browser.new_context(
            viewport={"width": _WIDTH, "height": _HEIGHT}, reduced_motion="reduce"
        ) as context:
            frames = _first_whole(context.new_page(), address)
        strip = _strip(browser, frames)
        browser.close()
    if len(strip) > _MAX_BYTES:
        raise SystemExit(f"the strip has {len(strip)} bytes, more than {_MAX_BYTES}")
    _FILE.write_bytes(strip)


def _first_whole(page: Page, address: str) -> list[Frame]:
    """Film until an answer comes to an end by itself: so small a model often talks on."""
    for _ in range(_MOST_TAKES):
        frames = _film(page, address)
        if frames:
            return frames
    raise SystemExit("no answer was long enough to be stopped and short enough to end; try again")


def _film(page: Page, address: str) -> list[Frame]:
    """Play it once; nothing where the answer ended too soon, or at the limit on its length."""
    frames: list[Frame] = []

    def take(caption: str) -> None:
        frames.append(Frame(caption, page.screenshot()))

    page.goto(address)
    page.get_by_label("Your question").fill(_QUESTION)
    page.get_by_role("button", name="Send").click()
    page.wait_for_url("**/chat/*")
    answer = page.locator("article.assistant .text")
    take("Asked")
    expect(answer).not_to_be_empty(timeout=_PATIENCE_MS)
    take("The first words")
    if not _grows_to(answer, _STREAMED_CHARACTERS):
        return []
    take("Streaming")
    if not _grows_to(answer, _STOPPED_CHARACTERS):
        return []
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped.", exact=True)).to_be_visible(timeout=_PATIENCE_MS)
    stopped = answer.inner_text()
    take("Stopped")
    page.get_by_role("button", name="Go on").click()
    page.mouse.move(0, 0)
    if not _grows_to(answer, len(stopped) + _GONE_ON_CHARACTERS):
        return []
    take("Going on")
    expect(page.locator("article.assistant.open")).to_have_count(0, timeout=_PATIENCE_MS)
    # What was shown before it was stopped is the beginning of what there is now.
    if not answer.inner_text().startswith(stopped):
        raise SystemExit(f"the answer did not go on from where it was stopped: {stopped!r}")
    take("Complete")
    return [] if page.locator("article.assistant .note").count() else frames


def _grows_to(answer: Locator, characters: int) -> bool:
    """Wait until so much is shown; False where the answer ends before."""
    page = answer.page
    while page.locator("article.assistant.open").count():
        if len(answer.inner_text()) >= characters:
            return True
        page.wait_for_timeout(_LOOK_MS)
    return False


def _strip(browser: Browser, frames: list[Frame]) -> bytes:
    pictures = "".join(
        f"<figure><figcaption><b>{number}</b> {html.escape(frame.caption)}</figcaption>"
        f'<img alt="" src="data:image/png;base64,{base64.b64encode(frame.picture).decode()}">'
        "</figure>"
        for number, frame in enumerate(frames, start=1)
    )
    with browser.new_context(viewport={"width": 100, "height": 100}) as context:
        page = context.new_page()
        page.set_content(
            "<style>"
            "body { margin: 0; background: #23272e; }"
            f"main {{ display: grid; grid-template-columns: repeat({_FRAMES_IN_A_ROW}, {_WIDTH}px);"
            " gap: 20px; padding: 20px; width: max-content; }"
            "figure { margin: 0; }"
            "figcaption { color: #fff; font: 18px/1 sans-serif; padding: 4px 0 12px; }"
            "figcaption b { color: #9fb4d0; padding-right: 4px; }"
            "img { display: block; border-radius: 4px; }"
            f"</style><main>{pictures}</main>"
        )
        page.wait_for_function("[...document.images].every((one) => one.complete)")
        return page.locator("main").screenshot()


if __name__ == "__main__":
    main()
