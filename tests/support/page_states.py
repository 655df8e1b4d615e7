"""The states of the pages that a person can get to, each reached as a person would reach it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.async_api import Page, Route, expect

from app.domain.errors import Forbidden, Overloaded
from app.models.build import build_models
from app.web.assets import Assets
from app.web.model_choice import ModelChoice
from app.web.problems import problem_of
from app.web.rendering import Rendering
from tests.support.contract_client import ContractClient
from tests.support.nodes import Cluster, Node, ask, messages, read_stream, running_cluster
from tests.support.web import SECRET, token

_FIRST_EVENTS = 15
PASSWORD: Final = "correct horse battery"
_APP = Path(__file__).parents[2] / "app"
_LONG_WORD = "Donaudampfschifffahrtsgesellschaft" * 9
_WIDE = f"""\
A long word: {_LONG_WORD}, `{_LONG_WORD}` and <https://example.org/{_LONG_WORD}>.

# A heading of one long word: {_LONG_WORD}

| {" | ".join(f"Column {number}" for number in range(1, 13))} |
|{" --- |" * 12}
| {" | ".join("a-cell-that-does-not-break" for _ in range(12))} |

- one
  - two
    - three
      - four: {_LONG_WORD}

```python
{"x = [" + ", ".join(str(number) for number in range(80)) + "]"}
```

> {_LONG_WORD}
>
> ```
> {_LONG_WORD}
> ```
"""
"""What does not fit into a narrow window by itself."""


@dataclass
class Stage:
    """A server with one conversation for each state that a conversation can be in."""

    cluster: Cluster
    complete: str
    failed: str
    cancelled: str
    streaming: str

    @property
    def url(self) -> str:
        """Where the pages are."""
        return self.cluster.web[0].url

    async def open(self, page: Page, session_id: str) -> None:
        """Open a conversation and wait until it is connected."""
        await page.goto(f"{self.url}/chat/{session_id}")
        await expect(page.locator("#connection")).to_have_attribute("data-state", "live")


Lead = Callable[[Page, Stage], Awaitable[None]]
"""Leads a page to a state, and waits until it is there."""


@asynccontextmanager
async def running_stage(directory: Path) -> AsyncIterator[Stage]:
    """Start the server and play the conversations; one goes on until the end of the block."""
    async with running_cluster(
        directory, web=1, workers=1, DEMO_DELAY_MS="1", JWT_SECRET=SECRET, SIGN_UP="open"
    ) as cluster:
        node = cluster.web[0]
        complete = await ask(node, f"{_LONG_WORD} and what else is wide?")
        failed = await ask(node, "/fail 12")
        cancelled = await ask(node, "/count 100000 20")
        streaming = await ask(node, "/count 100000 50")
        await _begun(node, cancelled)
        async with httpx.AsyncClient(base_url=node.url) as client:
            message_id = cancelled["assistant_message"]["message_id"]
            (await client.post(f"/api/chat/{message_id}/cancel")).raise_for_status()
        for question in ("/markdown", f"/echo {_WIDE}"):
            await answered(node, complete)
            complete = await ask(node, question, session_id=complete["session_id"])
        for asked in (complete, cancelled, failed):
            await answered(node, asked)
        await _begun(node, streaming)
        yield Stage(
            cluster,
            complete=complete["session_id"],
            failed=failed["session_id"],
            cancelled=cancelled["session_id"],
            streaming=streaming["session_id"],
        )


async def answered(node: Node, asked: dict[str, Any]) -> None:
    """Wait for the answer to a question."""
    message_id = asked["assistant_message"]["message_id"]
    await read_stream(node, asked["session_id"], ContractClient(), until_complete=message_id)


async def _begun(node: Node, asked: dict[str, Any]) -> None:
    await read_stream(node, asked["session_id"], ContractClient(), events=_FIRST_EVENTS)


async def _first_visit(page: Page, stage: Stage) -> None:
    await page.set_extra_http_headers({"Authorization": f"Bearer {token('newcomer')}"})
    await page.goto(stage.url)
    await expect(page.locator("nav li")).to_have_count(0)


async def _home(page: Page, stage: Stage) -> None:
    await page.goto(stage.url)
    await expect(page.locator("nav li")).not_to_have_count(0)


async def _complete(page: Page, stage: Stage) -> None:
    await stage.open(page, stage.complete)
    await expect(page.locator("article")).to_have_count(6)


async def _streaming(page: Page, stage: Stage) -> None:
    await stage.open(page, stage.streaming)
    await expect(page.locator("#stop")).to_be_visible()


async def _failed(page: Page, stage: Stage) -> None:
    await stage.open(page, stage.failed)
    await expect(page.locator(".note.failed")).to_be_visible()


async def _cancelled(page: Page, stage: Stage) -> None:
    await stage.open(page, stage.cancelled)
    await expect(page.locator(".note")).to_contain_text("Stopped")


async def _refused(page: Page, stage: Stage) -> None:
    await page.goto(stage.url)
    await page.fill("#question", "too long " * 600)
    await page.press("#question", "Enter")
    await expect(page.locator("#problem p")).to_be_visible()


async def _older(page: Page, stage: Stage) -> None:
    last = (await messages(stage.cluster.web[0], stage.complete))[-1]
    await page.goto(f"{stage.url}/chat/{stage.complete}?before={last['message_id']}")
    await expect(page.get_by_text("Back to the latest messages")).to_be_visible()


async def _deleted(page: Page, stage: Stage) -> None:
    node = stage.cluster.web[0]
    asked = await ask(node, "/echo soon gone")
    await answered(node, asked)
    await stage.open(page, asked["session_id"])
    await page.request.delete(f"{stage.url}/api/sessions/{asked['session_id']}")
    await expect(page.get_by_text("This conversation was deleted")).to_be_visible()


async def _found(page: Page, stage: Stage) -> None:
    await page.goto(f"{stage.url}/?q=count+100000")
    await expect(page.locator("#list mark")).not_to_have_count(0)


async def _nothing_found(page: Page, stage: Stage) -> None:
    await page.goto(f"{stage.url}/?q={_LONG_WORD[:190]}xyz")
    await expect(page.get_by_role("heading", name="Nothing found")).to_have_count(1)


async def _drawer_open(page: Page, stage: Stage) -> None:
    await page.set_viewport_size({"width": 390, "height": 800})
    await stage.open(page, stage.complete)
    await page.locator("#drawer summary").click()
    await expect(page.get_by_role("searchbox")).to_be_visible()


async def _entry_menu_open(page: Page, stage: Stage) -> None:
    await page.goto(stage.url)
    await page.locator("nav .menu summary").first.click()
    await expect(page.get_by_role("link", name="Rename")).to_be_visible()


async def _renaming(page: Page, stage: Stage) -> None:
    await page.goto(f"{stage.url}/chat/{stage.complete}?rename")
    await expect(page.get_by_label("Title", exact=True)).to_be_visible()


async def _restorable(page: Page, stage: Stage) -> None:
    node = stage.cluster.web[0]
    asked = await ask(node, f"/echo {_LONG_WORD}")
    await answered(node, asked)
    await page.goto(stage.url)
    entry = page.locator(f"#entry-{asked['session_id']}")
    if not await entry.is_visible():
        await page.locator("#drawer summary").click()
    await entry.locator("summary").click()
    await entry.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("button", name="Undo")).to_be_visible()


async def _not_found(page: Page, stage: Stage) -> None:
    answer = await page.goto(f"{stage.url}/chat/there-is-none")
    assert answer is not None
    assert answer.status == HTTPStatus.NOT_FOUND


async def _reference(page: Page, stage: Stage) -> None:
    await page.goto(f"{stage.url}/schema")
    await expect(page.get_by_role("heading", name="API reference")).to_be_visible()


async def _sign_in_refused(page: Page, stage: Stage) -> None:
    await page.goto(f"{stage.url}/sign-in?next=/account")
    await page.get_by_label("Name").fill(f"{_LONG_WORD[:200]}-{uuid.uuid4().hex}")
    await page.get_by_label("Password").fill("a guess")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text("is not right")).to_be_visible()


async def _sign_up(page: Page, stage: Stage) -> None:
    await page.goto(f"{stage.url}/sign-up")
    await expect(page.get_by_role("button", name="Make the account")).to_be_visible()


async def _signed_in(page: Page, stage: Stage) -> None:
    await _sign_up(page, stage)
    await page.get_by_label("Name").fill(f"W{uuid.uuid4().hex}{'W' * 31}")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Make the account").click()
    await page.wait_for_url(f"{stage.url}/")


async def _account(page: Page, stage: Stage) -> None:
    await _signed_in(page, stage)
    await page.goto(f"{stage.url}/account")
    await expect(page.get_by_role("heading", name="Change the password")).to_be_visible()


def _problem(error: Exception) -> Lead:
    """Show the page of a problem that no address leads to, with the headers of any page."""

    async def lead(page: Page, stage: Stage) -> None:
        problem = problem_of(error)
        html = Rendering(
            _APP / "templates", Assets(_APP / "static"), ModelChoice(build_models())
        ).render(
            "problem.html",
            problem=problem,
            phrase=HTTPStatus(problem.status).phrase,
            request_id="0123456789abcdef" * 2,
        )

        async def fulfil(route: Route) -> None:
            answer = await route.fetch()
            await route.fulfill(response=answer, status=problem.status, body=html)

        await page.route("**/nowhere", fulfil)
        await page.goto(f"{stage.url}/nowhere")
        await expect(page.get_by_text(str(problem.status))).to_be_visible()

    return lead


STATES: Final[dict[str, Lead]] = {
    "first visit": _first_visit,
    "home": _home,
    "question refused": _refused,
    "complete": _complete,
    "streaming": _streaming,
    "failed": _failed,
    "cancelled": _cancelled,
    "older messages": _older,
    "found": _found,
    "nothing found": _nothing_found,
    "drawer open": _drawer_open,
    "entry menu open": _entry_menu_open,
    "renaming": _renaming,
    "restorable": _restorable,
    "deleted elsewhere": _deleted,
    "not found": _not_found,
    "forbidden": _problem(Forbidden()),
    "overloaded": _problem(Overloaded()),
    "internal error": _problem(RuntimeError()),
    "reference": _reference,
    "sign-in refused": _sign_in_refused,
    "sign-up": _sign_up,
    "signed in": _signed_in,
    "account": _account,
}
