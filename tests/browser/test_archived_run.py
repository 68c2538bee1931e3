"""The page of an expired run."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from playwright.sync_api import Page, expect

from expired_runs import EVENTS, OLD_NAMED_RUNS, OLD_RUNS, run_retention
from frame_delivery import fold
from runfold_storage.retention.policies import Policy, set_policy
from service_threads import run_api


@pytest.fixture
def api(
    deployment: None,
    database: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    tmp_path: Path,
) -> Iterator[httpx.Client]:
    """A server over a history of which half was archived."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=65))
    run_retention(migrated_url, tmp_path)
    with run_api(redis_url, migrated_url, archive_url=str(tmp_path)) as client:
        yield client


def test_an_archived_run_is_shown(page: Page) -> None:
    """It has its nodes, events and a notice of its source, and opens no live stream."""
    page.goto("/runs/nightly%2F7")
    expect(page.get_by_role("main")).to_contain_text("is read from the archive")
    expect(page.get_by_role("heading", level=1)).to_contain_text(OLD_NAMED_RUNS[0][0]["workflow"])
    page.get_by_role("tab", name="Events").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("node_finished")


def test_payloads_of_the_archive(page: Page) -> None:
    """A run without its payloads shows when they expired."""
    page.goto(f"/runs/{OLD_RUNS[3][0]['run']}")
    expect(page.get_by_role("main")).to_contain_text("are read from the archive")
