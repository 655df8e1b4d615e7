"""Signing in as a person does: in a browser, with and without scripts, and out for good."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.support.browser import running_browser, watch_console
from tests.support.nodes import Cluster, Node, running_cluster
from tests.support.page_states import PASSWORD

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Run it as others reach it: nobody is anybody without signing in."""
    async with running_cluster(
        tmp_path_factory.mktemp("sign-in"),
        web=1,
        workers=1,
        ENVIRONMENT="production",
        PUBLIC_ORIGIN="http://127.0.0.1:1",
        JWT_SECRET="Zn3rT8q1Lw5vXy7Kp2Hs9Dg4Jb6Mc0Fa-for-tests",
        SIGN_UP="open",
        DEMO_DELAY_MS="1",
    ) as cluster:
        yield cluster


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.web[0]


async def sign_up(page: Page, node: Node, name: str) -> None:
    await page.goto(f"{node.url}/sign-up")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Make the account").click()
    await page.wait_for_url(f"{node.url}/")


async def sign_in(page: Page, name: str, password: str = PASSWORD) -> None:
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def test_a_person_signs_up_asks_signs_out_and_leaves_nothing_to_go_back_to(
    browser: Browser, node: Node
) -> None:
    page = await browser.new_page()
    complaints = watch_console(page)
    await page.goto(f"{node.url}/")
    await expect(page).to_have_url(f"{node.url}/sign-in")
    await sign_up(page, node, "grace")
    await page.fill("#question", "/echo what only grace may read")
    await page.press("#question", "Enter")
    answer = page.locator("article.assistant .text")
    await expect(answer).to_have_text("what only grace may read", timeout=20_000)
    # By script, and with the header that shows where it comes from.
    await page.fill("#question", "/echo the second one")
    await page.press("#question", "Enter")
    await expect(answer.last).to_have_text("the second one", timeout=20_000)
    conversation = page.url
    assert complaints == []

    await page.get_by_role("button", name="Sign out").click()
    await expect(page).to_have_url(f"{node.url}/sign-in")
    await page.go_back()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=20_000)
    await expect(page.get_by_text("what only grace may read")).to_have_count(0)

    await page.goto(conversation)
    await sign_in(page, "grace", "a wrong guess")
    await expect(page.get_by_role("alert")).to_contain_text("is not right")
    await expect(page.get_by_label("Name")).to_have_value("grace")
    await expect(page.get_by_label("Password")).to_have_value("")
    await sign_in(page, "grace")
    await expect(page).to_have_url(conversation)
    await expect(answer.last).to_have_text("the second one")
    await page.context.close()


async def test_signing_out_in_one_tab_clears_the_other(browser: Browser, node: Node) -> None:
    context = await browser.new_context()
    first, second = await context.new_page(), await context.new_page()
    await sign_up(first, node, "hedy")
    await first.fill("#question", "/echo open in two tabs")
    await first.press("#question", "Enter")
    await expect(first.locator("#connection")).to_have_attribute(
        "data-state", "live", timeout=20_000
    )
    await second.goto(first.url)
    await expect(second.locator("#connection")).to_have_attribute(
        "data-state", "live", timeout=20_000
    )
    await first.get_by_role("button", name="Sign out").click()
    await expect(second.get_by_role("heading", name="Sign in")).to_be_visible(timeout=20_000)
    await context.close()


async def test_all_of_it_works_without_a_script(browser: Browser, node: Node) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await sign_up(page, node, "edith")
    await page.fill("#question", "/echo without a script")
    await page.get_by_role("button", name="Send").click()
    await expect(page).to_have_url(re.compile("/chat/"))
    # As the page itself does while an answer is written.
    await expect(page.locator("article.assistant .text")).to_have_text(
        "without a script", timeout=20_000
    )
    await page.goto(f"{node.url}/account")
    await page.get_by_label("Current password").fill(PASSWORD)
    await page.get_by_label("New password", exact=True).fill("another good one")
    await page.get_by_label("New password again").fill("another good one")
    await page.get_by_role("button", name="Change the password").click()
    await expect(page.get_by_role("status")).to_contain_text("The password is changed")
    await page.get_by_role("button", name="Sign out everywhere").click()
    await expect(page).to_have_url(f"{node.url}/sign-in")
    await sign_in(page, "edith", "another good one")
    await expect(page).to_have_url(f"{node.url}/")
    await context.close()
