"""The page of jobs, and deletions by a job."""

import httpx
from playwright.sync_api import Browser, Page, expect

from posted_events import make_ended_run, post_events
from runfold_storage.admin import Admin
from runfold_storage.jobs import Job, save_progress, start_job
from runfold_storage.postgres.connections import connect
from runfold_workers.jobs.registry import DeletionProgress
from service_threads import run_api, run_job_worker

ROWS = "table.jobs tbody tr"


def test_no_jobs_says_what_makes_some(page: Page) -> None:
    """The navigation leads to the page."""
    page.goto("/stats")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    expect(page.get_by_text("runfold rebuild --background")).to_be_visible()


def test_a_job_is_followed(
    page: Page, api: httpx.Client, redis_url: str, migrated_url: str
) -> None:
    """The row shows waiting, progress and end without a reload; opened details stay open."""
    page.goto("/jobs")
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    post_events(api, *(each for n in range(4) for each in make_ended_run(f"r{n}", project="acme")))
    job = Admin(migrated_url, at_once=1).delete_runs(project="acme")
    assert isinstance(job, Job)
    row = page.locator(ROWS)
    expect(row).to_contain_text("Delete runs project acme")
    expect(row).to_contain_text("waiting for a worker")
    row.locator("summary").first.click()
    expect(row.locator(".json")).to_contain_text("acme")
    with connect(migrated_url, autocommit=True) as database:
        start_job(database, job.id)
        save_progress(database, job.id, DeletionProgress(deleted=1))
    expect(row).to_contain_text("1 of 4 runs")
    bar = row.get_by_role("progressbar")
    assert bar.evaluate("each => each.value") == 0.25
    expect(row.locator(".json")).to_be_visible()
    with run_job_worker(redis_url, migrated_url):
        expect(row.locator(".status")).to_contain_text("completed")
    expect(bar).to_have_count(0)
    assert api.get("/api/v1/runs").json()["runs"] == []


def test_jobs_by_status(page: Page, api: httpx.Client, migrated_url: str) -> None:
    """The filter is in the address, and Back removes it."""
    post_events(api, *make_ended_run("a"), *make_ended_run("b"))
    Admin(migrated_url, at_once=1).delete_runs(everything=True)
    page.goto("/jobs")
    expect(page.locator(ROWS)).to_have_count(1)
    page.get_by_label("Status").select_option("failed")
    expect(page.get_by_role("heading", name="No failed jobs")).to_be_visible()
    expect(page).to_have_url("/jobs?status=failed")
    page.go_back()
    expect(page.locator(ROWS)).to_have_count(1)


def test_many_runs_are_deleted_by_a_job(
    browser: Browser, api: httpx.Client, redis_url: str, migrated_url: str
) -> None:
    """The dialog shows the progress until the end, and may be left before."""
    post_events(api, *(each for name in "abc" for each in make_ended_run(name)))
    with run_api(redis_url, migrated_url, delete_at_once=1) as other:
        page = browser.new_page(base_url=str(other.base_url))
        page.goto("/")
        page.get_by_role("button", name="Delete all…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Delete permanently").click()
        expect(dialog).to_contain_text("is waiting for a worker")
        dialog.get_by_role("link", name="Jobs").click()
        expect(dialog).to_have_count(0)
        expect(page.locator(ROWS)).to_contain_text("Delete runs all runs")
        page.go_back()
        page.get_by_role("button", name="Delete all…").click()
        dialog.get_by_role("button", name="Delete permanently").click()
        expect(dialog).to_contain_text("is waiting for a worker")
        with run_job_worker(redis_url, migrated_url):
            expect(dialog).to_have_count(0)
            expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
        page.close()
