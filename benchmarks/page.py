"""What a person waits for: the text after a reload, and each chunk from its append to its paint.

Starts everything in an empty folder, opens pages in a real Chromium, and prints three tables::

    python -m benchmarks.page [reload] [paint] [growth] [--reloads 20] [--chunks 3000]

``reload``: from the start of the navigation, in the middle of an answer, until the text so far is
painted, and until the page follows the session again. ``paint``: from the append of a chunk to the
session log to its paint, over each transport. ``growth``: CPU time of the page's main thread
per chunk, in each tenth of a long answer.

All processes and the browser share the machine's cores and its one clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, CDPSession, Page, async_playwright
from redis.asyncio import Redis

from app.streams import keys
from benchmarks.client import post
from benchmarks.system import HOST, System, percentile, running_system
from benchmarks.texts import KINDS

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_NOTES = (Path(__file__).parent / "page.js").read_text("utf-8")
_PATIENCE_MS = 30_000
_LOOK_SECONDS = 0.25
_WORDS = (100, 2_000, 8_000)
_TRANSPORTS = ("websocket", "sse", "poll")
_STAMP = re.compile(rb"t(\d{16})\b")
_COSTS = {"all": "TaskDuration", "layout": "LayoutDuration"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=[], help="reload, paint, growth; all if none")
    parser.add_argument("--reloads", type=int, default=20, help="of each answer")
    parser.add_argument("--rate", type=float, default=20.0, help="chunks a second of «paint»")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of answers of «paint»")
    parser.add_argument("--chunks", type=int, default=3_000, help="of the answers of «growth»")
    options = parser.parse_args()
    with running_system("benchmarks.page_worker", MODEL_MAX_CHARACTERS="10000000") as system:
        asyncio.run(_measure(system, options))


async def _measure(system: System, options: argparse.Namespace) -> None:
    tables = options.tables or ["reload", "paint", "growth"]
    async with _browser() as browser:
        if "reload" in tables:
            print(
                "reload: ms from navigation start to the text so far on screen, and to live again"
            )
            for words in _WORDS:
                await _reload(system, browser, words, options.reloads)
        if "paint" in tables:
            print("paint: ms per chunk, p50 p99")
            for transport in _TRANSPORTS:
                await _paint(system, browser, transport, options.rate, options.seconds)
        if "growth" in tables:
            print("growth: CPU µs of the page's main thread per chunk, in each tenth of the answer")
            for kind in KINDS:
                await _growth(system, browser, kind, options.chunks)


@asynccontextmanager
async def _browser() -> AsyncIterator[Browser]:
    path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        raise SystemExit("Chromium is missing: install the package «chromium»")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


# ---- From a reload to the current text.


async def _reload(system: System, browser: Browser, words: int, reloads: int) -> None:
    session_id = await _asked(system, f"prose {words} 100000 200")
    page = await _opened(system, browser, session_id)
    text = page.locator("article.assistant .text >> nth=-1")
    shown, live = [], []
    for _ in range(reloads):
        await asyncio.sleep(random.uniform(0.1, 0.5))
        # Whatever is on the screen now must be there again.
        await text.evaluate("it => sessionStorage.setItem('wanted', it.textContent.length)")
        await page.reload(wait_until="commit")
        await _until(page, "measured.shown > 0 && measured.live > 0", _PATIENCE_MS / 1000)
        noted = await page.evaluate("measured")
        shown.append(noted["shown"])
        live.append(noted["live"])
    await _left(page, session_id)
    shown.sort()
    live.sort()
    text_p50, text_p95 = percentile(shown, 50), percentile(shown, 95)
    print(
        f"{words:>8} words: text p50 {text_p50:>6.0f} p95 {text_p95:>6.0f}"
        f"   live p50 {percentile(live, 50):>6.0f} p95 {percentile(live, 95):>6.0f}"
        f"   ({reloads} reloads)",
        flush=True,
    )


# ---- From an append to its paint.


async def _paint(
    system: System, browser: Browser, transport: str, rate: float, seconds: float
) -> None:
    session_id = await _asked(system, "clock 1 0 0")
    page = await _opened(system, browser, session_id, transport)
    appended: dict[int, float] = {}
    chunks = int(rate * seconds)
    async with _publications(system, session_id) as publications:
        listening = asyncio.ensure_future(_note(publications, appended))
        await _ask(system, session_id, f"clock 0 {chunks} {1000 / rate:g}")
        await _until(page, f"measured.chunks.length >= {chunks}", _PATIENCE_MS / 1000 + seconds)
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
    used = await page.get_attribute("#connection", "data-transport")
    assert used == transport, f"{transport} was asked for, {used} was used"
    noted: list[tuple[int, float, float]] = await page.evaluate("measured.chunks")
    noted = [one for one in noted if one[0] in appended]
    columns = {
        "made to append": [appended[made] - made for made, _, _ in noted],
        "append to DOM": [changed - appended[made] for made, changed, _ in noted],
        "append to paint": [painted - appended[made] for made, _, painted in noted],
    }
    print(
        f"{transport:>14}: "
        + "   ".join(f"{name} {_spread(values)}" for name, values in columns.items())
        + f"   ({len(noted)} chunks)",
        flush=True,
    )
    await _left(page, session_id)


def _spread(microseconds: list[float]) -> str:
    ordered = sorted(one / 1000 for one in microseconds)
    return f"{percentile(ordered, 50):>5.1f} {percentile(ordered, 99):>5.1f}"


@asynccontextmanager
async def _publications(system: System, session_id: str) -> AsyncIterator[Any]:
    async with Redis.from_url(system.redis_url) as redis, redis.pubsub() as publications:
        await publications.subscribe(keys.channel(session_id))
        yield publications


async def _note(publications: Any, appended: dict[int, float]) -> None:
    """Note when each chunk was published, which its append does in the same step."""
    async for publication in publications.listen():
        now = time.time_ns() / 1000
        if publication["type"] == "message":
            for made in _STAMP.findall(publication["data"]):
                appended.setdefault(int(made), now)


# ---- What a chunk costs the page.


async def _growth(system: System, browser: Browser, kind: str, chunks: int) -> None:
    session_id = await _asked(system, "clock 1 0 0")
    page = await _opened(system, browser, session_id)
    metrics = await page.context.new_cdp_session(page)
    # In the thread's own CPU time: what else the machine does is not the page's cost.
    await metrics.send("Performance.enable", {"timeDomain": "threadTicks"})
    tenth = chunks // 10
    seen = 0
    async with _publications(system, session_id) as publications:
        marks = [await _spent(metrics)]
        await _ask(system, session_id, f"{kind} 0 {chunks} 10")
        async for publication in publications.listen():
            if publication["type"] == "message":
                seen += publication["data"].count(b'"chunk":')
            while len(marks) <= 10 and seen >= tenth * len(marks):
                marks.append(await _spent(metrics))
            if len(marks) > 10:
                break
    for name, metric in _COSTS.items():
        spent = [
            (after[metric] - before[metric]) / tenth * 1_000_000
            for before, after in itertools.pairwise(marks)
        ]
        print(f"{kind:>8} {name:>7}: {' '.join(f'{one:>5.0f}' for one in spent)}", flush=True)
    await _left(page, session_id)


async def _spent(metrics: CDPSession) -> dict[str, float]:
    said = await metrics.send("Performance.getMetrics")
    return {one["name"]: one["value"] for one in said["metrics"]}


# ---- What they share.


async def _asked(system: System, question: str) -> str:
    asked = await post(HOST, system.port, "/api/chat", {"message": question})
    return str(asked["session_id"])


async def _ask(system: System, session_id: str, question: str) -> None:
    """Ask as soon as the answer before is complete."""
    body = {"session_id": session_id, "message": question}
    while True:
        try:
            await post(HOST, system.port, "/api/chat", body)
        except RuntimeError:
            await asyncio.sleep(0.1)
        else:
            return


async def _opened(
    system: System, browser: Browser, session_id: str, transport: str = "websocket"
) -> Page:
    """Open a session's page, told that the transport is the one that works, until it is live."""
    context = await browser.new_context(viewport={"width": 1200, "height": 800})
    page = await context.new_page()
    await page.goto(f"{system.url}/health/live")
    remembered = json.dumps({"way": transport, "at": time.time_ns() // 1_000_000})
    await page.evaluate(
        "kept => { localStorage['throughline.transport'] = kept; sessionStorage.clock = 1; }",
        remembered,
    )
    await page.add_init_script(_NOTES)
    await page.goto(f"{system.url}/chat/{session_id}")
    await page.wait_for_selector("#connection[data-state=live]", timeout=_PATIENCE_MS)
    await page.wait_for_selector("article.assistant .text >> nth=-1", timeout=_PATIENCE_MS)
    return page


async def _until(page: Page, condition: str, seconds: float) -> None:
    """Wait without the page's own timers: its policy forbids what Playwright would do there."""
    until = time.monotonic() + seconds
    while not await page.evaluate(condition):
        if time.monotonic() > until:
            seen = await page.evaluate("JSON.stringify(measured).slice(0, 300)")
            raise SystemExit(f"not within {seconds:g} s: {condition}; noted {seen}")
        await asyncio.sleep(_LOOK_SECONDS)


async def _left(page: Page, session_id: str) -> None:
    """Delete the session, which stops what is being written, and close the page."""
    await page.evaluate("url => fetch(url, { method: 'DELETE' })", f"/api/sessions/{session_id}")
    await page.context.close()


if __name__ == "__main__":
    main()
