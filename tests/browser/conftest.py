"""The page in a real browser, over the real service, worker, Redis and PostgreSQL."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from chromium import CHROMIUM, launch
from service_threads import run_api_and_worker

expect.set_options(timeout=60_000)  # generous: only what never happens fails


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; per module, because Playwright's event loop runs as long."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def api(redis_url: str, migrated_url: str) -> Iterator[httpx.Client]:
    """A server and a worker over an empty database."""
    with run_api_and_worker(redis_url, migrated_url) as client:
        yield client


@pytest.fixture
def page(browser: Browser, api: httpx.Client) -> Iterator[Page]:
    """A new page of that server; the test fails if the browser has reported errors or warnings."""
    context = browser.new_context(base_url=str(api.base_url), locale="en-GB", timezone_id="UTC")
    complaints: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def collect(message: ConsoleMessage) -> None:
        is_unknown_run = "status of 404" in message.text  # the page shows that itself
        if message.type in ("error", "warning") and not is_unknown_run:
            complaints.append(message.text)

    page.on("console", collect)
    page.set_default_timeout(60_000)
    yield page
    context.close()
    assert complaints == []
