"""Runs of some age, for tests of retention and of the archive, and what should be left of them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from oracle import Event, Projection
from rebuild_checks import NEVER_STOP
from runfold.protocol.ids import make_run_id, run_key
from runfold_storage.archive.lookup import find_events
from runfold_storage.archive.store import open_archive
from runfold_storage.jobs import add_job
from runfold_storage.ledger.events import LedgerEvent
from runfold_storage.postgres import connections
from runfold_storage.retention.policies import apply_all_now
from runfold_workers.retention.job import KIND, Progress, retain

DAY_US = 86_400_000_000
NOW_US = int(datetime.now(UTC).timestamp() * 1e6)


def make_run(
    days_ago: float, project_: str = "acme", external_id: str | None = None
) -> list[Event]:
    """One that ended so many days ago, with a node."""
    at_us = NOW_US - int(days_ago * DAY_US)
    run = external_id or make_run_id(at_us)
    common = {"run": run}
    return [
        {
            **common,
            "type": "started",
            "id": 0,
            "at_us": at_us,
            "workflow": "w",
            "project": project_,
        },
        {**common, "type": "node_started", "id": 1, "at_us": at_us + 1000, "node": "n"},
        {
            **common,
            "type": "node_finished",
            "id": 2,
            "at_us": at_us + 2000,
            "node": "n",
            "status": "completed",
        },
        {**common, "type": "completed", "id": 3, "at_us": at_us + 3000},
    ]


def events_of(runs: Iterable[list[Event]]) -> list[Event]:
    """One run after the other."""
    return [event for run in runs for event in run]


OLD_RUNS = [make_run(days) for days in (100, 99.5, 70, 60)]
OLD_NAMED_RUNS = [make_run(80, external_id="nightly/7")]
EXEMPT_PROJECT_RUNS = [make_run(61, "keeps")]
YOUNG_RUNS = [make_run(days) for days in (3, 2, 0.1)]
RUNS = [*OLD_RUNS, *OLD_NAMED_RUNS, *EXEMPT_PROJECT_RUNS, *YOUNG_RUNS]
EVENTS = events_of(RUNS)


def run_retention(url: str, archive: object = None, **limits: Any) -> Progress:
    """Do all that is due by all policies; into an archive, if one is given."""
    archive_url = None if archive is None else str(archive)
    with connections.connect(url, autocommit=True) as connection:
        apply_all_now(connection)
        return retain(connection, add_job(connection, KIND, {}), NEVER_STOP, archive_url, **limits)


def run_keys_of(runs: Iterable[list[Event]]) -> set[bytes]:
    """Those of the tables."""
    return {run_key(run[0]["run"]).bytes for run in runs}


def without_payloads(expected: Projection, gone: Iterable[list[Event]]) -> Projection:
    """Everything but the events of these."""
    left = run_keys_of(gone)
    ledger = {ref: event for ref, event in expected.ledger.items() if ref[1] not in left}
    return Projection(expected.runs, expected.nodes, expected.stats, ledger)


def without_rows(expected: Projection, gone: Iterable[list[Event]]) -> Projection:
    """Everything but events, runs and nodes of these."""
    left = run_keys_of(gone)
    return Projection(
        {ref: row for ref, row in expected.runs.items() if ref[1] not in left},
        {ref: row for ref, row in expected.nodes.items() if ref[1] not in left},
        expected.stats,
        without_payloads(expected, gone).ledger,
    )


def read_archive_rows(archive: Path, kind: str) -> list[dict[str, Any]]:
    """All rows of a kind, as an analyst reads them."""
    return [
        row
        for path in sorted(archive.glob(f"{kind}/*/*.parquet"))
        for row in pq.read_table(path, partitioning=None).to_pylist()
    ]


def find_archived(archive: object, run: list[Event]) -> list[LedgerEvent]:
    """The events that an archive has of a run, as often as it has them."""
    return list(find_events(open_archive(str(archive)), run[0]["run"]))
