"""axe-core, which knows the rules of accessible pages, run on a page in Chromium."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from playwright.async_api import Page

_SCRIPT = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"

# Nothing is fetched for it, and the size of what is touched is checked as well.
_RUN = """() => axe.run({
  preload: false,
  resultTypes: ['violations', 'incomplete'],
  rules: { 'target-size': { enabled: true } },
})"""


@cache
def _source() -> str:
    return _SCRIPT.read_text("utf-8")


async def violations(page: Page) -> list[str]:
    """Give every violation on the page as it is now: the rule, the element, what is wrong with it.

    The script comes in through the debugger, so that the page's policy stays in force.
    """
    if not await page.evaluate("() => 'axe' in window"):
        await page.evaluate(_source())
    results: dict[str, Any] = await page.evaluate(_RUN)
    assert results["passes"] or results["violations"], "no rule was applied"
    return [
        f"{rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
        for rule in results["violations"]
        for node in rule["nodes"]
    ]
