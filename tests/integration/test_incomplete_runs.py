"""A run of which no beginning has come: it is shown as what it is, and is of no project."""

import csv
import io
import json
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from acceptance.cli_processes import environ, runfold
from folded_events import SHARDS, fold_events, make_event, make_run_events
from rebuild_checks import examine_runs
from runfold_storage import History
from runfold_storage.errors import BadParameter
from runfold_storage.parameters import UNKNOWN
from runfold_workers.integrity.selection import Selection
from service_threads import run_api, run_api_and_worker

FIELDS = {"workflow": "w", "project": "acme"}
BEGINNING = [make_event("started", "lost beginning", 0, **FIELDS)]
REST = [
    make_event("node_started", "lost beginning", 1, node="n"),
    make_event("node_finished", "lost beginning", 2, node="n", status="completed"),
    make_event("failed", "lost beginning", 3, error={"type": "E", "message": "broken"}),
]


@pytest.fixture
def history(migrated_url: str) -> Any:
    """With a complete run of project `default`, and one of which only the end has come."""
    fold_events(migrated_url, [*make_run_events("complete", 10), *REST])
    with History(migrated_url) as history:
        yield history


def test_a_run_without_a_beginning_is_not_of_project_default(history: History) -> None:
    """It is in no list, figure, workflow or failure of a project; where all are, it is."""
    [run] = [run for run in history.runs().runs if run.id == "lost beginning"]
    assert (run.incomplete, run.project, run.workflow) == (True, None, None)
    assert (run.status, run.nodes.completed) == ("failed", 1)
    detail = history.run("lost beginning")
    assert detail is not None
    assert (detail.incomplete, detail.project, detail.workflow) == (True, None, None)

    page = history.runs(project="default")
    assert ([run.id for run in page.runs], page.total.value) == (["complete"], 1)
    assert history.runs().total.value == 2
    assert history.stats(project="default").total == 1
    assert history.stats(workflow="unnamed").total == 1
    assert history.stats().total == 2
    groups = history.stats(group_by="project").groups
    assert {(each.project, each.total) for each in groups} == {("default", 1), (None, 1)}  # type: ignore[union-attr]
    assert [each.project for each in history.workflows().workflows] == ["default"]
    assert history.failures(project="default").failures == []
    assert len(history.failures().failures) == 1


def test_a_run_whose_beginning_comes_late_is_an_ordinary_one(
    history: History, database: psycopg.Connection, migrated_url: str
) -> None:
    """Its figures move to its project; a beginning that names none is that of `default`."""
    fold_events(migrated_url, BEGINNING)
    run = history.run("lost beginning")
    assert run is not None
    assert (run.incomplete, run.project, run.workflow) == (False, "acme", "w")
    assert history.stats(project="acme").total == 1
    assert {each.project for each in history.workflows().workflows} == {"acme", "default"}
    assert len(history.failures(project="acme", workflow="w").failures) == 1
    counted = "SELECT sum(n) FROM rollups_hourly WHERE project = %s"
    assert database.execute(counted, (UNKNOWN,)).fetchone() in [(0,), (None,)]

    fold_events(migrated_url, [make_event("completed", "another", 5)])
    fold_events(migrated_url, [make_event("queued", "another", 4)])
    other = history.run("another")
    assert other is not None
    assert (other.incomplete, other.project, other.workflow) == (False, "default", "unnamed")
    assert examine_runs(database, Selection(shards=SHARDS))[0] == []


def test_nobody_reaches_runs_without_a_beginning_by_their_mark(
    history: History, migrated_url: str
) -> None:
    """Neither a filter nor a runner that uses it as a name."""
    unknown: list[dict[str, Any]] = [{"project": UNKNOWN}, {"workflow": UNKNOWN}]
    for filters in unknown:
        with pytest.raises(BadParameter, match="without a beginning"):
            history.runs(**filters)
    fold_events(migrated_url, [make_event("started", "sly", 20, project=UNKNOWN, workflow=UNKNOWN)])
    run = history.run("sly")
    assert run is not None
    assert (run.incomplete, run.project, run.workflow) == (False, "default", "unnamed")


def test_a_run_without_a_beginning_shows_on_every_way_out(
    history: History, migrated_url: str, redis_url: str
) -> None:
    """In lists, details, exports and commands."""
    said = {"incomplete": True, "project": None, "workflow": None}

    def is_said(run: dict[str, Any]) -> bool:
        return said.items() <= run.items()

    with run_api(redis_url, migrated_url) as api:
        runs = api.get("/api/v1/runs").json()["runs"]
        assert [is_said(run) for run in runs if run["id"] == "lost beginning"] == [True]
        assert [run["incomplete"] for run in runs if run["id"] == "complete"] == [False]
        assert is_said(api.get("/api/v1/runs/lost%20beginning").json())
        exported = {
            form: api.get("/api/v1/export", params={"format": form}).content
            for form in ("csv", "ndjson", "parquet")
        }
    lines = map(json.loads, exported["ndjson"].splitlines())
    assert [is_said(run) for run in lines if run["id"] == "lost beginning"] == [True]
    rows = list(csv.DictReader(io.StringIO(exported["csv"].decode())))
    assert {(row["id"], row["project"], row["incomplete"]) for row in rows} == {
        ("lost beginning", "", "true"),
        ("complete", "default", "false"),
    }
    table = pq.read_table(io.BytesIO(exported["parquet"])).to_pylist()
    assert [is_said(row) for row in table if row["id"] == "lost beginning"] == [True]

    env = environ(RUNFOLD_DATABASE_URL=migrated_url)
    listed = runfold("runs", env=env).stdout.decode()
    assert "(incomplete)" in listed
    assert "(unknown)" in listed
    shown = runfold("show", "lost beginning", env=env).stdout.decode()
    assert "note      incomplete: neither" in shown


def test_watchers_see_a_run_become_complete(redis_url: str, migrated_url: str) -> None:
    """First without a project, then as one of its own."""
    with run_api_and_worker(redis_url, migrated_url) as api:
        seen: list[dict[str, Any]] = []
        with api.stream("GET", "/api/v1/live") as stream:
            lines = stream.iter_lines()
            _read_until(lines, seen, lambda: bool(seen))
            assert api.post("/api/v1/events", json=REST).status_code == 202
            _read_until(lines, seen, lambda: any(run.get("incomplete") for run in _runs(seen)))
            assert api.post("/api/v1/events", json=BEGINNING).status_code == 202
            _read_until(lines, seen, lambda: any(run["project"] == "acme" for run in _runs(seen)))
        last = _runs(seen)[-1]
        assert (last["incomplete"], last["workflow"]) == (False, "w")


def _runs(seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for data in seen:
        found += [run for run in data.get("runs", [data]) if run.get("id") == "lost beginning"]
    return found


def _read_until(lines: Any, seen: list[dict[str, Any]], is_enough: Any) -> None:
    for line in lines:
        if line.startswith("data:"):
            seen.append(json.loads(line.removeprefix("data:")))
            if is_enough():
                return
    raise AssertionError("the stream has ended")
