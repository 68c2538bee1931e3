"""The page in a real browser, over the real service, worker, Redis and PostgreSQL."""

import shutil
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from service_threads import run_api_and_worker

expect.set_options(timeout=60_000)  # what is slow passes late, what never comes fails

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; no longer than a module, for Playwright's event loop runs as long."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH; on Debian: apt-get install chromium")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def api(redis_url: str, migrated_url: str) -> Iterator[httpx.Client]:
    """A server and a worker over an empty database."""
    with run_api_and_worker(redis_url, migrated_url) as client:
        yield client


@pytest.fixture
def page(browser: Browser, api: httpx.Client) -> Iterator[Page]:
    """An empty page of that server; it must not have complained of anything in the end."""
    context = browser.new_context(base_url=str(api.base_url), locale="en-GB", timezone_id="UTC")
    complaints: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def hear(said: ConsoleMessage) -> None:
        is_unknown_run = "status of 404" in said.text  # the page says so itself
        if said.type in ("error", "warning") and not is_unknown_run:
            complaints.append(said.text)

    page.on("console", hear)
    page.set_default_timeout(60_000)
    yield page
    context.close()
    assert complaints == []
