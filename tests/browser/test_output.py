"""The output of a run, from its end and from its beginning."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from playwright.sync_api import Locator, Page, expect

from posted_events import make_event_ago, post_events

LINES = ".text-line"
BEGAN = datetime.now(UTC) - timedelta(seconds=60)


def line(n: float, text: str, **fields: Any) -> dict[str, Any]:
    """A line, the later the higher its number."""
    at = BEGAN + timedelta(milliseconds=n)
    return make_event_ago(
        "logged", "r", text=text, at=at.isoformat(timespec="microseconds"), **fields
    )


def lines(first: int, last: int, **fields: Any) -> list[dict[str, Any]]:
    """All of them."""
    return [line(n, f"line {n}", **fields) for n in range(first, last)]


def said(page: Page) -> Locator:
    """What the page says of the lines that it shows."""
    return page.get_by_label("Output", exact=True).get_by_role("status")


def test_the_end_of_a_long_output_comes_first(page: Page, api: httpx.Client) -> None:
    """From there one gets to any line, and back."""
    post_events(
        api,
        make_event_ago("started", "r", 700, workflow="w"),
        *lines(0, 2500),
        make_event_ago("completed", "r"),
    )
    page.goto("/runs/r?tab=log")
    expect(said(page)).to_have_text("Last 1,000 lines")
    expect(page.locator(LINES).last).to_contain_text("line 2499")
    page.get_by_role("button", name="Earlier lines").click()
    expect(said(page)).to_have_text("Last 2,000 lines")
    expect(page.locator(LINES).last).to_contain_text("line 2499")
    page.get_by_role("button", name="Earlier lines").click()
    expect(said(page)).to_have_text("2,500 lines")
    expect(page.get_by_role("button", name="Earlier lines")).to_have_count(0)
    page.reload()
    page.get_by_role("button", name="From the beginning").click()
    expect(said(page)).to_have_text("First 1,000 lines")
    expect(page.locator(LINES).first).to_contain_text("line 0")
    page.get_by_role("button", name="Later lines").click()
    expect(said(page)).to_have_text("First 2,000 lines")
    expect(page.locator(LINES).first).to_contain_text("line 0")
    page.get_by_role("button", name="To the end").click()
    expect(page.locator(LINES).last).to_contain_text("line 2499")


def test_the_end_is_followed(page: Page, api: httpx.Client) -> None:
    """Also when more comes at once than is read at a time; a late line takes its place."""
    post_events(api, make_event_ago("started", "r", 700, workflow="w"), *lines(0, 1500))
    page.goto("/runs/r?tab=log")
    expect(page.locator(LINES).last).to_contain_text("line 1499")
    post_events(api, *lines(1500, 2100))
    expect(page.locator(LINES).last).to_contain_text("line 2099")
    expect(said(page)).to_have_text("Last 1,600 lines")
    post_events(api, line(2098.5, "in between"), *lines(2100, 2101))
    expect(page.locator(LINES).last).to_contain_text("line 2100")
    expect(page.locator(LINES).nth(-3)).to_contain_text("in between")


def test_what_one_node_wrote(page: Page, api: httpx.Client) -> None:
    """However long ago, and whatever the others have written since."""
    post_events(
        api,
        make_event_ago("started", "r", 700, workflow="w"),
        make_event_ago("node_started", "r", 700, node="quiet"),
        make_event_ago("logged", "r", 699, node="quiet", text="only this"),
        *lines(0, 2500, node="loud"),
    )
    page.goto("/runs/r?node=quiet")
    page.get_by_role("button", name="Show output").click()
    expect(said(page)).to_have_text("1 line of quiet")
    expect(page.locator(LINES)).to_contain_text("only this")
    page.get_by_role("button", name="All nodes").click()
    expect(said(page)).to_have_text("Last 1,000 lines")


def test_lines_are_those_of_a_terminal(page: Page, api: httpx.Client) -> None:
    """Pieces of a line are one, and of what was written over the last is shown."""
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
    """And what is open in one of them stays open."""
    post_events(api, make_event_ago("started", "r", 700, workflow="w", inputs={"part": 7}))
    page.goto("/runs/r?tab=events")
    rows = page.locator(".events tbody tr")
    expect(rows).to_have_count(1)
    rows.first.locator("summary").first.click()
    expect(rows.first.locator(".json")).to_contain_text("part")
    post_events(api, make_event_ago("node_started", "r", 600, node="first"))
    expect(rows).to_have_count(2)
    expect(rows.first.locator(".json")).to_be_visible()
