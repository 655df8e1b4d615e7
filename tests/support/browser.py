"""A real Chromium for tests that look at pages as a person would."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, async_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """Start Chromium; skip where there is none, fail where there must be one (CI)."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        message = "Chromium is missing: install the package «chromium» to run this test"
        if os.environ.get("CI"):
            pytest.fail(f"{message} (and CI is set)")
        pytest.skip(message)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path,
            args=_ARGUMENTS,
            # Visitors' browsers have the back/forward cache that playwright turns off.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        try:
            yield browser
        finally:
            await browser.close()


def watch_console(page: Page) -> list[str]:
    """Collect what the page complains about: errors, warnings, uncaught exceptions."""
    complaints: list[str] = []
    page.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints
