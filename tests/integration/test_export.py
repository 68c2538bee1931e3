"""Exports: every format, whatever is in the names, of any length, over Python, REST and the CLI."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from folded_events import fold_events, make_event, make_run_events
from runfold_storage.errors import BadParameter
from runfold_storage.history import History
from runfold_storage.queries.runs.export_formats import NODE_COLUMNS, RUN_COLUMNS
from runfold_storage.queries.runs.planner import DEFAULT_LIMITS, ListLimits
from service_threads import run_api

EVIL = '=HYPERLINK("http://x","y")'


@pytest.fixture
def folded_url(migrated_url: str) -> str:
    """Fold ten runs with two nodes each, one without nodes, and one with unusual names."""
    events: list[dict[str, Any]] = []
    for number in range(10):
        run = f"run-{number}"
        events += make_run_events(run, number, workflow="w", project="p", tags={"n": number})
        for node in ("a", "b"):
            events.append(make_event("node_started", run, number, node=node, parents=["z"]))
            events.append(make_event("node_finished", run, number + 0.5, node=node))
    events.append(make_event("started", "bare", 20, workflow="w"))
    events.append(make_event("failed", "bare", 21, error={"message": "-1 left\nof 2"}))
    events += make_run_events("strange", 21, workflow=EVIL, user='a "quoted", ünusual one')
    fold_events(migrated_url, events)
    return migrated_url


def export(url: str, form: str, list_limits: ListLimits = DEFAULT_LIMITS, **wanted: Any) -> bytes:
    with History(url, pool_size=1, list_limits=list_limits) as history:
        return b"".join(history.export(form, **wanted))


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def test_every_format_has_every_run_once(folded_url: str) -> None:
    """Runs come in the order of lists, over many pages, with the same figures."""
    limits = ListLimits(exported=3)
    with History(folded_url, pool_size=1) as history:
        listed = history.runs(limit=100).runs
        assert len(listed) == 12
    ids = [run.id for run in listed]
    lines = [json.loads(line) for line in export(folded_url, "ndjson", limits).splitlines()]
    assert [line["id"] for line in lines] == ids
    assert [line["duration_ms"] for line in lines] == [run.duration_ms for run in listed]
    table = pq.read_table(io.BytesIO(export(folded_url, "parquet", limits)))
    assert table.schema.names == list(RUN_COLUMNS)
    assert table["id"].to_pylist() == ids
    assert table["started_at"].to_pylist() == [run.started_at for run in listed]
    assert [row["id"] for row in rows(export(folded_url, "csv", limits))] == ids


@pytest.mark.parametrize("most", [1, 5, 1000])
def test_nodes_come_with_their_runs(folded_url: str, most: int) -> None:
    """Tables have one row per attempt, or one for a run without nodes; NDJSON has a list."""
    limits = ListLimits(exported_nodes=most)
    found = rows(export(folded_url, "csv", limits, nodes=True))
    assert list(found[0]) == list(NODE_COLUMNS)
    assert len(found) == 22
    assert [row["node"] for row in found if row["run"] == "run-7"] == ["a", "b"]
    assert [row["node"] for row in found if row["run"] == "bare"] == [""]
    table = pq.read_table(io.BytesIO(export(folded_url, "parquet", limits, nodes=True)))
    assert (table.num_rows, table.schema.names) == (22, list(NODE_COLUMNS))
    exported = export(folded_url, "ndjson", limits, nodes=True)
    lines = [json.loads(line) for line in exported.splitlines()]
    assert sum(len(line["node_list"]) for line in lines) == 20
    assert len(lines) == 12


def test_csv_is_safe_to_open_in_a_spreadsheet(folded_url: str) -> None:
    """Texts that a spreadsheet would evaluate as formulas are quoted; others are unchanged."""
    found = {row["id"]: row for row in rows(export(folded_url, "csv"))}
    assert found["strange"]["workflow"] == f"'{EVIL}"
    assert found["strange"]["user"] == 'a "quoted", ünusual one'
    assert found["bare"]["error_message"] == "'-1 left\nof 2"
    assert found["run-3"]["tags"] == '{"n":"3"}'
    assert found["run-3"]["duration_ms"] == "1000.0"
    table = pq.read_table(io.BytesIO(export(folded_url, "parquet")))
    assert EVIL in table["workflow"].to_pylist()


def test_filters_and_nothing_to_export(folded_url: str) -> None:
    """Exports accept the filters of lists; an empty one has its header or schema."""
    assert [row["id"] for row in rows(export(folded_url, "csv", status="failed"))] == ["bare"]
    assert rows(export(folded_url, "csv", workflow="none")) == []
    assert export(folded_url, "csv", workflow="none").startswith(b"id,project,")
    empty = pq.read_table(io.BytesIO(export(folded_url, "parquet", workflow="none")))
    assert (empty.num_rows, empty.schema.names) == (0, list(RUN_COLUMNS))
    with pytest.raises(BadParameter, match="csv, ndjson, parquet"):
        export(folded_url, "xml")


def test_over_http(folded_url: str, redis_url: str) -> None:
    """The answer is a file with a name, or a problem that names the parameter."""
    with run_api(redis_url, folded_url) as api:
        answer = api.get("/api/v1/export?format=csv&project=p")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == 'attachment; filename="runs.csv"'
        assert len(rows(answer.content)) == 10
        nodes = api.get("/api/v1/export?format=parquet&nodes=true").content
        assert pq.read_table(io.BytesIO(nodes)).num_rows == 22
        for query in ("format=xml", "", "format=csv&status=odd", "format=csv&limit=1"):
            wrong = api.get(f"/api/v1/export?{query}")
            assert wrong.status_code == 400
            assert wrong.headers["content-type"] == "application/problem+json"
        assert api.get("/api/v1/export?format=xml").json()["parameter"] == "format"


def runfold_export(url: str, *words: str) -> tuple[subprocess.CompletedProcess[bytes], int]:
    """Return how the command ended, and its peak memory in KiB."""
    program = (
        "import resource, sys\n"
        "from runfold_stack.cli import main\n"
        "code = main(['export', *sys.argv[1:]])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={"RUNFOLD_DATABASE_URL": url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=600,
    )
    return done, int(done.stderr.split()[-1])


def test_the_command_writes_a_file_when_it_is_complete(folded_url: str, tmp_path: Path) -> None:
    """The format follows from the name; a failed export leaves no file."""
    target = tmp_path / "runs.csv"
    done, _ = runfold_export(folded_url, "--status", "failed", "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert len(rows(target.read_bytes())) == 1
    done, _ = runfold_export(folded_url, "--format", "ndjson")
    assert len(done.stdout.splitlines()) == 12
    done, _ = runfold_export(folded_url, "--status", "odd", "-o", str(tmp_path / "x.csv"))
    assert done.returncode == 2
    done, _ = runfold_export(folded_url, "-o", str(tmp_path / "x.doc"))
    assert b"--format csv|ndjson|parquet" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_the_command_needs_memory_for_pages_only(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Its memory is that of the pages, as that of `History.export` is for 100,000 runs."""
    insert = """
        INSERT INTO runs
            (shard, run, created_at, last_event_at, change_seq, status, project, workflow)
        SELECT 0, gen_random_uuid(), t, t, n, 'completed', 'p', repeat('w', 100) || n
        FROM generate_series(%s::int, %s::int) AS n,
             LATERAL (SELECT timestamptz '2026-01-01' + n * interval '1 s' AS t) AS at
    """
    target = tmp_path / "runs.csv"
    runfold_export(migrated_url, "-o", str(target))  # compiles modules, which takes memory too
    peaks = []
    for first, last in ((1, 2000), (2001, 60_000)):
        database.execute(insert, (first, last))
        done, peak = runfold_export(migrated_url, "-o", str(target))
        assert done.returncode == 0, done.stderr
        peaks.append(peak)
    few, many = peaks
    assert many - few < 16 * 1024
    assert target.read_bytes().count(b"\n") == 60_001
