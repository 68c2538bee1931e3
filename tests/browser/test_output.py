"""The output of a run, from either end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from playwright.sync_api import Locator, Page, expect

from posted_events import make_event_ago, post_events

LINES = ".text-line"
BEGAN = datetime.now(UTC) - timedelta(seconds=60)


def line(n: float, text: str, **fields: Any) -> dict[str, Any]:
    """A log event; a higher number is later."""
    at = BEGAN + timedelta(milliseconds=n)
    return make_event_ago(
        "logged", "r", text=text, at=at.isoformat(timespec="microseconds"), **fields
    )


def lines(first: int, last: int, **fields: Any) -> list[dict[str, Any]]:
    """Return the events of these numbers."""
    return [line(n, f"line {n}", **fields) for n in range(first, last)]


def summary(page: Page) -> Locator:
    """The text about the visible lines."""
    return page.get_by_label("Output", exact=True).get_by_role("status")


def test_the_end_of_a_long_output_comes_first(page: Page, api: httpx.Client) -> None:
    """Buttons lead from there to any line and back."""
    post_events(
        api,
        make_event_ago("started", "r", 700, workflow="w"),
        *lines(0, 2500),
        make_event_ago("completed", "r"),
    )
    page.goto("/runs/r?tab=log")
    expect(summary(page)).to_have_text("Last 1,000 lines")
    expect(page.locator(LINES).last).to_contain_text("line 2499")
    page.get_by_role("button", name="Earlier lines").click()
    expect(summary(page)).to_have_text("Last 2,000 lines")
    expect(page.locator(LINES).last).to_contain_text("line 2499")
    page.get_by_role("button", name="Earlier lines").click()
    expect(summary(page)).to_have_text("2,500 lines")
    expect(page.get_by_role("button", name="Earlier lines")).to_have_count(0)
    page.reload()
    page.get_by_role("button", name="From the beginning").click()
    expect(summary(page)).to_have_text("First 1,000 lines")
    expect(page.locator(LINES).first).to_contain_text("line 0")
    page.get_by_role("button", name="Later lines").click()
    expect(summary(page)).to_have_text("First 2,000 lines")
    expect(page.locator(LINES).first).to_contain_text("line 0")
    page.get_by_role("button", name="To the end").click()
    expect(page.locator(LINES).last).to_contain_text("line 2499")


def test_the_end_is_followed(page: Page, api: httpx.Client) -> None:
    """Even if more lines arrive than one page holds; a late line is put in order."""
    post_events(api, make_event_ago("started", "r", 700, workflow="w"), *lines(0, 1500))
    page.goto("/runs/r?tab=log")
    expect(page.locator(LINES).last).to_contain_text("line 1499")
    post_events(api, *lines(1500, 2100))
    expect(page.locator(LINES).last).to_contain_text("line 2099")
    expect(summary(page)).to_have_text("Last 1,600 lines")
    post_events(api, line(2098.5, "in between"), *lines(2100, 2101))
    expect(page.locator(LINES).last).to_contain_text("line 2100")
    expect(page.locator(LINES).nth(-3)).to_contain_text("in between")


def test_what_one_node_wrote(page: Page, api: httpx.Client) -> None:
    """However old it is, and however much other nodes have written since."""
    post_events(
        api,
        make_event_ago("started", "r", 700, workflow="w"),
        make_event_ago("node_started", "r", 700, node="quiet"),
        make_event_ago("logged", "r", 699, node="quiet", text="only this"),
        *lines(0, 2500, node="loud"),
    )
    page.goto("/runs/r?node=quiet")
    page.get_by_role("button", name="Show output").click()
    expect(summary(page)).to_have_text("1 line of quiet")
    expect(page.locator(LINES)).to_contain_text("only this")
    page.get_by_role("button", name="All nodes").click()
    expect(summary(page)).to_have_text("Last 1,000 lines")


def test_lines_are_those_of_a_terminal(page: Page, api: httpx.Client) -> None:
    """Chunks are joined to lines, and of an overwritten line the last text is shown."""
    pieces = ["\x1b[32mdownlo", "ading\x1b[0m\n", "10%\r50%\r", "100%\r\n", "no end"]
    post_events(
        api,
        make_event_ago("started", "r", 700, workflow="w"),
        *(
            make_event_ago("logged", "r", 600 - n, stream="stdout", text=x)
            for n, x in enumerate(pieces)
        ),
    )
    page.goto("/runs/r?tab=log")
    expect(page.locator(f"{LINES} code")).to_have_text(["downloading", "100%", "no end"])


def test_events_are_followed(page: Page, api: httpx.Client) -> None:
    """Opened details stay open."""
    post_events(api, make_event_ago("started", "r", 700, workflow="w", inputs={"part": 7}))
    page.goto("/runs/r?tab=events")
    rows = page.locator(".events tbody tr")
    expect(rows).to_have_count(1)
    rows.first.locator("summary").first.click()
    expect(rows.first.locator(".json")).to_contain_text("part")
    post_events(api, make_event_ago("node_started", "r", 600, node="first"))
    expect(rows).to_have_count(2)
    expect(rows.first.locator(".json")).to_be_visible()
