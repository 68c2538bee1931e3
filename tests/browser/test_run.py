"""The page of one run."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from posted_events import make_event_ago, make_failed_run, post_events

REAL = Path(__file__).parents[2] / "../shared/data/wfinstances"
LARGEST = REAL / "montage-chameleon-dss-10d-001.json"


def test_a_stack_is_two_clicks_away(page: Page, api: httpx.Client) -> None:
    """From the list to the run, from its error to the node where it happened."""
    post_events(api, *make_failed_run("r", stack="File load.py, line 3\nValueError: no rows"))
    page.goto("/")
    page.locator("table.runs tbody tr").click()
    page.get_by_role("main").get_by_role("button", name="load", exact=True).first.click()
    panel = page.get_by_role("complementary", name="Node load")
    expect(panel.locator("pre")).to_contain_text("File load.py, line 3")
    expect(panel).to_contain_text("part")


def test_a_node_can_be_shared(page: Page, api: httpx.Client) -> None:
    """Its address opens the same node on the same tab."""
    post_events(api, *make_failed_run("a/b?c", stack="x"))
    page.goto("/runs/a%2Fb%3Fc")
    page.get_by_role("tab", name="Graph").click()
    page.get_by_role("button", name="load: failed").click()
    expect(page).to_have_url(re.compile(r"/runs/a%2Fb%3Fc\?tab=graph&node=load$"))
    page.reload()
    expect(page.get_by_role("complementary", name="Node load")).to_be_visible()
    expect(page.get_by_role("tab", name="Graph")).to_have_attribute("aria-selected", "true")
    expect(page.locator("svg .box.selected")).to_have_count(1)


@pytest.mark.parametrize(
    ("tab", "text"), [("log", "hello"), ("events", "completed"), ("data", "7")]
)
def test_a_tab_can_be_shared(page: Page, api: httpx.Client, tab: str, text: str) -> None:
    """The address opens the same tab."""
    post_events(
        api,
        make_event_ago("started", "r", 5, workflow="w", inputs={"x": 7}),
        make_event_ago("logged", "r", 4, text="hello"),
        make_event_ago("completed", "r", 3),
    )
    page.goto(f"/runs/r?tab={tab}")
    expect(page.get_by_role("tabpanel")).to_contain_text(text)


def test_a_run_is_followed(page: Page, api: httpx.Client) -> None:
    """Planned and running nodes, new output and the end appear without a reload."""
    plan = [{"node": "first"}, {"node": "second", "parents": ["first"]}]
    post_events(api, make_event_ago("started", "r", 5, workflow="w", nodes=plan))
    page.goto("/runs/r")
    lines = page.locator(".timeline .line")
    expect(lines).to_have_count(2)
    expect(lines.first).to_contain_text("planned")
    post_events(api, make_event_ago("node_started", "r", 4, node="first"))
    expect(lines.first.locator(".bar.running")).to_be_visible()
    page.get_by_role("tab", name="Output", exact=True).click()
    post_events(api, make_event_ago("logged", "r", 3, node="first", text="hello\n"))
    expect(page.locator(".text-line")).to_contain_text("hello")
    post_events(api, make_event_ago("logged", "r", 2, node="first", text="again\n"))
    expect(page.locator(".text-line")).to_have_count(2)
    post_events(
        api,
        make_event_ago("node_finished", "r", 2, node="first"),
        make_event_ago("completed", "r", 1),
    )
    expect(page.locator(".heading .status").first).to_contain_text("completed")


def test_a_node_that_was_skipped_is_not_called_planned(page: Page, api: httpx.Client) -> None:
    """A node without a start shows its status; only a pending one is planned."""
    post_events(
        api,
        make_event_ago(
            "started", "r", 5, workflow="w", nodes=[{"node": "left out"}, {"node": "to come"}]
        ),
        make_event_ago("node_finished", "r", 4, node="left out", status="skipped"),
    )
    page.goto("/runs/r")
    lines = page.locator(".timeline .line")
    expect(lines).to_have_count(2)
    for name, label in (("left out", "skipped"), ("to come", "planned")):
        expect(lines.filter(has_text=name).locator(".length")).to_have_text(label)


def test_text_of_events_stays_text(page: Page, api: httpx.Client) -> None:
    """In every field that a runner can set, on every page that shows it."""
    evil = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    run = f"run {evil}"
    error = {"type": evil, "message": evil, "stack": evil}
    payload = {evil: [evil, {"x": evil}]}
    post_events(
        api,
        make_event_ago(
            "started", run, 9, workflow=evil, project=evil, user=evil, session=evil,
            tags={evil: evil}, inputs=payload, metadata=payload, parent_run=evil,
            trigger={"type": evil, "data": payload}, nodes=[{"node": evil, "name": evil}],
        ),
        make_event_ago(
            "node_started", run, 8, node=evil, name=evil, node_type=evil, inputs=payload
        ),
        make_event_ago("logged", run, 7, node=evil, level=evil, text=evil),
        make_event_ago(
            "node_finished", run, 6, node=evil, status="failed", error=error, outputs=payload
        ),
        make_event_ago("failed", run, 5, error={**error, "node": evil}, outputs=payload),
    )  # fmt: skip
    for address in ("/", "/workflows", "/failures", "/stats"):
        page.goto(address)
        expect(page.get_by_role("main")).to_contain_text("<script>window.hacked")
    page.goto("/")
    page.locator("table.runs tbody td.name a").first.click()
    page.get_by_role("main").get_by_role("button", name="<script>").first.click()
    expect(page.get_by_role("complementary")).to_contain_text("<img src=x")
    for tab in page.get_by_role("tab").all():
        tab.click()
        expect(page.locator("[role=tabpanel]")).not_to_be_empty()
    page.get_by_role("tab", name="Events").click()
    for row in page.locator(".events td > details > summary").all():
        row.click()
    expect(page.locator(".events .json").first).to_contain_text("<script>")
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("main img, main script").count() == 0


def test_ten_thousand_nodes_stay_a_few_elements(page: Page, api: httpx.Client) -> None:
    """Only visible rows are drawn, and every row can be reached."""
    nodes = [{"node": f"step {number}"} for number in range(9_999)]
    post_events(
        api, make_event_ago("started", "r", 9, workflow="w", nodes=[*nodes, {"node": "the last"}])
    )
    page.goto("/runs/r")
    lines = page.locator(".timeline .line")
    expect(lines.first).to_contain_text("step")
    expect(lines).to_have_count(2)  # grouped by name
    page.get_by_label("Group by name").uncheck()
    expect(lines.first).to_contain_text("step 0")
    assert lines.count() < 100
    page.locator(".timeline .virtual").evaluate("each => each.scrollTo(0, each.scrollHeight)")
    expect(page.locator(".timeline .line", has_text="the last")).to_be_visible()
    assert lines.count() < 100


@pytest.mark.skipif(not LARGEST.exists(), reason=f"{LARGEST.name} is not there")
def test_a_real_trace_renders_and_scrolls(page: Page, api: httpx.Client, redis_url: str) -> None:
    """Every task of the largest real execution is on its timeline and in its graph."""
    command = [
        str(Path(sys.executable).with_name("runfold")),
        "import",
        "--format",
        "wfformat",
        str(LARGEST),
    ]
    done = subprocess.run(
        command, env={"RUNFOLD_REDIS_URL": redis_url}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    page.goto("/")
    page.locator("table.runs tbody tr").click()
    expect(page.locator(".timeline .tools")).to_contain_text("472 attempts")
    group = page.locator(".timeline .line.group", has_text="mDiffFit")
    expect(group).to_contain_text("× 360")
    group.get_by_role("button").click()
    rows = page.locator(".timeline .virtual")
    assert rows.evaluate("each => each.scrollHeight") > 360 * 20
    rows.evaluate("each => each.scrollTo(0, each.scrollHeight)")
    expect(page.locator(".timeline .line", has_text="mViewer")).to_be_visible()
    page.get_by_role("tab", name="Graph").click()
    expect(page.locator("svg .box")).to_have_count(8)
    page.get_by_label("One box per name").uncheck()
    expect(page.locator("svg .box")).to_have_count(472)
