"""Archived runs over REST: as any other run, with a word on where they are from."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

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
    """A server over a history of which half is due to be archived."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=65))
    with run_api(redis_url, migrated_url, archive_url=str(tmp_path)) as client:
        yield client


def test_archived_runs_are_there(api: httpx.Client, migrated_url: str, tmp_path: Path) -> None:
    """Details, events; a run is deleted there too, and then unknown."""
    gone, aged, own = OLD_RUNS[0][0]["run"], OLD_RUNS[3][0]["run"], OLD_NAMED_RUNS[0][0]["run"]
    events = api.get(f"/api/v1/runs/{gone}/events").json()
    assert api.get(f"/api/v1/runs/{gone}").json()["payloads"] == "kept"
    run_retention(migrated_url, tmp_path)
    detail = api.get(f"/api/v1/runs/{gone}").json()
    assert (detail["source"], detail["payloads"], detail["id"]) == ("archive", "archived", gone)
    assert [node["node"] for node in detail["nodes"]] == ["n"]
    assert api.get(f"/api/v1/runs/{gone}/events").json() == events
    detail = api.get(f"/api/v1/runs/{aged}").json()
    assert (detail["source"], detail["payloads"]) == ("database", "archived")
    assert detail["payloads_removed_at"]
    assert api.get("/api/v1/runs/nightly%2F7").json()["id"] == own
    assert api.delete("/api/v1/runs/nightly%2F7").status_code == 204
    for answer in (
        api.get("/api/v1/runs/nightly%2F7"),
        api.get("/api/v1/runs/nightly%2F7/events"),
        api.delete("/api/v1/runs/nightly%2F7"),
    ):
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:runfold:problem:run-unknown"


def test_an_archive_that_cannot_be_read(
    api: httpx.Client, migrated_url: str, tmp_path: Path
) -> None:
    """A 503 that shows no address of ours."""
    run_retention(migrated_url, tmp_path)
    for file in tmp_path.rglob("*.parquet"):
        file.write_bytes(b"these are no columns")
    answer = api.get(f"/api/v1/runs/{OLD_RUNS[0][0]['run']}")
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:runfold:problem:archive-unusable"
    assert str(tmp_path) not in answer.text
    detail = api.get(f"/api/v1/runs/{OLD_RUNS[3][0]['run']}").json()
    assert (detail["payloads"], detail["inputs"]) == ("unavailable", None)
