"""The list of runs and the other overviews."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from posted_events import make_ended_run, make_event_ago, make_failed_run, post_events

ROWS = "table.runs tbody tr"


def test_an_empty_history_shows_how_to_record(page: Page) -> None:
    """It names a command."""
    page.goto("/")
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
    expect(page.get_by_text("runfold exec -- echo hello")).to_be_visible()


def test_a_run_appears_and_completes_while_the_page_is_open(page: Page, api: httpx.Client) -> None:
    """The total is updated."""
    page.goto("/")
    expect(page.get_by_text("● live")).to_be_visible()
    post_events(api, make_event_ago("started", "nightly/1", 1, workflow="nightly", project="acme"))
    row = page.locator(ROWS)
    expect(row).to_have_count(1)
    expect(row).to_contain_text("nightly/1")
    expect(row.locator(".status")).to_contain_text("running")
    post_events(api, make_event_ago("completed", "nightly/1"))
    expect(row.locator(".status")).to_contain_text("completed")
    expect(page.get_by_text("1 run", exact=True)).to_be_visible()


def test_filters_are_in_the_address(page: Page, api: httpx.Client) -> None:
    """They survive a reload, and Back removes them."""
    post_events(
        api,
        *make_ended_run("a", project="acme"),
        *make_ended_run("b", end="failed", project="labs"),
    )
    page.goto("/")
    expect(page.locator(ROWS)).to_have_count(2)
    page.get_by_label("failed").check(force=True)
    expect(page).to_have_url(re.compile(r"/\?status=failed$"))
    expect(page.locator(ROWS)).to_have_count(1)
    page.reload()
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.get_by_label("failed")).to_be_checked()
    project = page.get_by_label("Project")
    project.fill("acme")
    project.press("Enter")
    expect(page.get_by_role("heading", name="No runs match these filters")).to_be_visible()
    page.go_back()
    expect(page.locator(ROWS)).to_have_count(1)
    page.go_back()
    expect(page.locator(ROWS)).to_have_count(2)
    expect(page).to_have_url(re.compile(r"/$"))


def test_search(page: Page, api: httpx.Client) -> None:
    """A part of the text finds runs; a complete id offers a link."""
    post_events(
        api,
        *make_ended_run("order-17", workflow="import"),
        *make_ended_run("order-18", workflow="export"),
    )
    page.goto("/")
    search = page.get_by_label("Search", exact=True)
    search.fill("IMPOR")
    search.press("Enter")
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.locator(ROWS)).to_contain_text("order-17")
    search = page.get_by_label("Search", exact=True)
    search.fill("order-18")
    search.press("Enter")
    page.get_by_text("A run has this id").get_by_role("link").click()
    expect(page).to_have_url(re.compile(r"/runs/order-18$"))


def test_a_run_leaves_a_filter_that_it_no_longer_matches(page: Page, api: httpx.Client) -> None:
    """The list of running runs drops one that has ended."""
    post_events(api, make_event_ago("started", "a", 5, workflow="w"))
    page.goto("/?status=running")
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.get_by_text("● live")).to_be_visible()
    post_events(api, make_event_ago("completed", "a"))
    expect(page.locator(ROWS)).to_have_count(0)


def test_pages(page: Page, api: httpx.Client) -> None:
    """Each run is on exactly one page."""
    post_events(api, *(each for n in range(60) for each in make_ended_run(f"run {n:02}", 600 - n)))
    page.goto("/")
    expect(page.locator(ROWS)).to_have_count(50)
    page.get_by_role("link", name="Older ›").click()
    expect(page.locator(ROWS)).to_have_count(10)
    expect(page.locator(ROWS).last).to_contain_text("run 00")
    page.go_back()
    expect(page.locator(ROWS)).to_have_count(50)
    expect(page.locator(ROWS).first).to_contain_text("run 59")


def test_the_keyboard_is_enough(page: Page, api: httpx.Client) -> None:
    """Down the list, into a run and back; `?` lists the shortcuts."""
    post_events(api, *make_ended_run("older", 90), *make_ended_run("newer", 30))
    page.goto("/")
    expect(page.locator(ROWS)).to_have_count(2)
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("tr:focus-within")).to_contain_text("older")
    page.keyboard.press("x")
    expect(page.get_by_role("button", name="Delete 1 selected…")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/runs/older$"))
    expect(page.get_by_role("tab", name="Timeline")).to_be_visible()
    page.keyboard.press("u")
    expect(page.locator(ROWS)).to_have_count(2)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("next run")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("w")
    expect(page.get_by_role("heading", name="Workflows")).to_be_visible()


def test_deleting_asks_first(page: Page, api: httpx.Client) -> None:
    """Cancel deletes nothing."""
    post_events(api, *make_ended_run("a"))
    page.goto("/")
    page.get_by_role("button", name="Delete all…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Delete 1 run?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator(ROWS)).to_have_count(1)
    assert api.get("/api/v1/runs/a").status_code == 200


def test_deleted_runs_disappear_from_every_page(page: Page, api: httpx.Client) -> None:
    """Selected or matching runs are deleted, and other open pages are updated."""
    post_events(
        api, *(each for name in "abcd" for each in make_ended_run(name, project=f"p-{name}"))
    )
    other = page.context.new_page()
    other.goto("/")
    expect(other.get_by_text("● live")).to_be_visible()
    page.goto("/")
    page.get_by_label("Select a").check()
    page.get_by_label("Select b").check()
    page.get_by_role("button", name="Delete 2 selected…").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete permanently").click()
    expect(page.locator(ROWS)).to_have_count(2)
    expect(other.locator(ROWS)).to_have_count(2)
    page.goto("/?project=p-c")
    page.get_by_role("button", name="Delete all matching…").click()
    expect(page.get_by_role("dialog")).to_contain_text("project = p-c")
    page.get_by_role("dialog").get_by_role("button", name="Delete permanently").click()
    expect(page.get_by_role("heading", name="No runs match these filters")).to_be_visible()
    expect(other.locator(ROWS)).to_have_count(1)
    expect(other.get_by_text("1 run", exact=True)).to_be_visible()


def test_workflows_show_their_last_runs(page: Page, api: httpx.Client) -> None:
    """Marks link to the runs, beside a chart of runs per day."""
    post_events(api, *make_ended_run("good", 90), *make_ended_run("bad", 30, end="failed"))
    page.goto("/workflows")
    marks = page.locator(".strip a")
    expect(marks).to_have_count(2)
    expect(marks.last).to_have_class(re.compile("failed"))
    expect(page.locator(".spark svg")).to_be_visible()
    marks.last.click()
    expect(page).to_have_url(re.compile(r"/runs/bad$"))


def test_groups_of_failures_link_to_their_runs(page: Page, api: httpx.Client) -> None:
    """And to an example, at its failed node."""
    post_events(
        api,
        *make_failed_run("r1", stack="x"),
        *make_failed_run("r2", stack="y"),
        *make_ended_run("fine"),
    )
    page.goto("/failures")
    groups = page.locator("table.failures tbody tr")
    expect(groups).to_have_count(1)
    expect(groups).to_contain_text("ValueError")
    expect(groups).to_contain_text("no rows")
    groups.get_by_role("link", name="ValueError").click()
    expect(page.locator(ROWS)).to_have_count(2)
    page.go_back()
    groups.get_by_role("link", name="Open run").click()
    expect(page.get_by_role("complementary", name="Node load")).to_be_visible()


def test_statistics_have_a_table_behind_each_chart(page: Page, api: httpx.Client) -> None:
    """The figures are those of the API."""
    post_events(api, *make_ended_run("good", 90), *make_ended_run("bad", 30, end="failed"))
    page.goto("/stats")
    cards = page.locator(".card")
    expect(cards.filter(has_text="Runs")).to_contain_text("2")
    expect(cards.filter(has_text="Success")).to_contain_text("50%")
    charts = page.locator("figure.chart")
    assert charts.count() >= 3
    runs = charts.filter(has=page.get_by_role("heading", name="Runs"))
    runs.get_by_text("Table").click()
    expect(runs.locator("tbody tr").last).to_contain_text("1")
    page.get_by_label("Period").select_option("24h")
    expect(page).to_have_url(re.compile("last=24h"))


@pytest.mark.parametrize("span", ["24h", "7d", "30d", "90d", "all"])
def test_a_chart_draws_at_most_400_buckets(page: Page, api: httpx.Client, span: str) -> None:
    """Even if the response has buckets of the years 1 and 9999."""
    post_events(api, *make_ended_run("good", 90))

    def swell(route: Route) -> None:
        answer = route.fetch()
        stats = answer.json()
        if stats.get("buckets"):
            (real,) = stats["buckets"]
            starts = [f"{year:04}-01-01T00:00:00Z" for year in range(1, 10_000, 2)]
            stats["buckets"] = [real | {"start": start} for start in starts] + [real]
        route.fulfill(response=answer, json=stats)

    page.route("**/api/v1/stats?*", swell)
    page.goto(f"/stats?last={span}")
    runs = page.locator("figure.chart").filter(
        has=page.get_by_role("heading", name="Runs", exact=True)
    )
    expect(runs.locator("svg")).to_be_visible()
    assert 1 <= runs.locator("g.bucket").count() <= 400
    assert runs.locator("tbody tr").count() <= 400


def test_days_are_those_of_the_viewer(page: Page, browser: Browser, api: httpx.Client) -> None:
    """Days begin at midnight in the viewer's time zone, without gaps between them."""
    post_events(
        api, *(each for n in range(48) for each in make_ended_run(f"run {n}", 1800 + 3600 * n))
    )
    context = browser.new_context(base_url=str(api.base_url), timezone_id="America/New_York")
    there = context.new_page()
    there.goto("/stats")
    runs = there.locator("figure.chart").filter(
        has=there.get_by_role("heading", name="Runs", exact=True)
    )
    runs.get_by_text("Table").click()
    counts = [int(cell) for cell in runs.locator("tbody td").all_inner_texts()]
    assert len(counts) == 7
    assert sum(counts) == 48
    now = datetime.now(ZoneInfo("America/New_York"))
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    hours_today = (now.timestamp() - midnight.timestamp()) // 3600  # not all days have 24
    assert counts[-1] in (hours_today, hours_today + 1)
    context.close()


def test_a_page_that_is_not_there_leads_back(page: Page, api: httpx.Client) -> None:
    """So is an unknown run."""
    answer = page.goto("/runs/nobody")
    assert answer is not None
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    page.get_by_role("main").get_by_role("link", name="See all runs").click()
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()


def test_every_control_has_a_name_and_the_page_fits_a_phone(page: Page, api: httpx.Client) -> None:
    """Every control has a name, and nothing scrolls sideways."""
    post_events(api, *make_ended_run("a", tags={"env": "prod"}), *make_ended_run("b", end="failed"))
    page.set_viewport_size({"width": 375, "height": 700})
    for address in ("/", "/workflows", "/failures", "/stats", "/jobs", "/runs/a"):
        page.goto(address)
        expect(page.locator("main h1")).to_be_visible()
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('input, select, button, a[href]')].filter(each =>
                !(each.labels?.length || each.getAttribute('aria-label') || each.textContent.trim()
                  || each.title)).map(each => each.outerHTML)"""
        )
        assert nameless == [], address
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= 375, f"{address} is {wide} pixels wide"
