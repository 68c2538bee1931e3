"""Writes the picture of the page that the README shows: `make screenshot`.

It records an example run on embedded servers, opens it in Chromium, and saves what is visible.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from playwright.sync_api import ViewportSize, expect, sync_playwright

from chromium import CHROMIUM, launch
from databases import create_database
from posted_events import make_event_ago, post_events
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.redis_server import RedisServer
from runfold_storage.migrate import migrate
from service_threads import run_api_and_worker

PICTURE: Final = Path(__file__).parents[2] / "api" / "screenshot.png"
SIZE: Final[ViewportSize] = {"width": 1200, "height": 720}
MAX_BYTES: Final = 120_000
RUN: Final = "orders/2026-11-30"
ERROR: Final = {"type": "TimeoutError", "message": "no response from the mail server after 30 s"}

# Name, parents, start and end in seconds after the run's start, cost in US dollars.
NODES: Final[tuple[tuple[str, list[str], float, float, float], ...]] = (
    ("fetch orders", [], 0.2, 6.1, 0),
    ("fetch prices", [], 0.2, 3.4, 0),
    ("fetch customers", [], 0.3, 4.9, 0),
    ("validate", ["fetch orders", "fetch prices"], 6.2, 9.8, 0),
    ("classify", ["validate"], 9.9, 21.3, 0.0184),
    ("summarize", ["validate", "fetch customers"], 9.9, 26.4, 0.0412),
    ("detect outliers", ["validate"], 9.9, 14.2, 0),
    ("render report", ["classify", "summarize", "detect outliers"], 26.5, 31.0, 0),
    ("upload", ["render report"], 31.1, 33.7, 0),
)


def example_run() -> Iterator[dict[str, Any]]:
    """The events of a run with parallel nodes, of which the last one fails."""
    names = [name for name, *_ in NODES] + ["send mail", "archive"]
    fields = {"workflow": "daily-orders", "project": "acme", "user": "ann"}
    yield make_event_ago(
        "started",
        RUN,
        70,
        **fields,
        trigger={"type": "schedule"},
        tags={"env": "prod", "region": "eu"},
        inputs={"day": "2026-11-29", "limit": 5000},
        nodes=[{"node": name} for name in names],
    )
    for name, parents, start_s, end_s, cost_usd in NODES:
        usage = {"input_tokens": 5200, "output_tokens": 900, "cost_usd": cost_usd}
        extra = {"usage": usage} if cost_usd else {}
        yield make_event_ago("node_started", RUN, 70 - start_s, node=name, parents=parents)
        yield make_event_ago(
            "node_finished", RUN, 70 - end_s, node=name, outputs={"rows": 4812}, **extra
        )
    yield make_event_ago("node_started", RUN, 36, node="send mail", parents=["upload"])
    yield make_event_ago("node_finished", RUN, 6, node="send mail", status="failed", error=ERROR)
    yield make_event_ago("node_finished", RUN, 5.9, node="archive", status="skipped")
    yield make_event_ago("failed", RUN, 5.8, error={**ERROR, "node": "send mail"})


def take(url: str) -> None:
    """Save what a browser shows of the run."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(base_url=url, viewport=SIZE, locale="en-GB", timezone_id="UTC")
        page.goto(f"/runs/{RUN.replace('/', '%2F')}")
        expect(page.locator(".timeline .line")).to_have_count(len(NODES) + 2)
        page.screenshot(path=PICTURE)
        browser.close()


def main() -> int:
    """Return 1, with the reason on stderr, if there is no Chromium or the picture is too large."""
    if CHROMIUM is None:
        sys.stderr.write("no chromium on PATH; on Debian: apt-get install chromium\n")
        return 1
    with (
        TemporaryDirectory(prefix="runfold-") as folder,
        RedisServer(Path(folder, "redis"), die_with_parent=True) as redis_server,
        PostgresServer(Path(folder, "postgres"), die_with_parent=True) as postgres_server,
    ):
        database_url = create_database(postgres_server, "screenshot")
        migrate(database_url)
        with run_api_and_worker(redis_server.url, database_url) as api:
            post_events(api, *example_run())
            take(str(api.base_url))
    size = PICTURE.stat().st_size
    if size > MAX_BYTES:
        sys.stderr.write(f"{PICTURE} has {size:,} bytes, more than {MAX_BYTES:,}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
