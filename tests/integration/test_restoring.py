"""Out of the archive into an empty database: as it was before anything went."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from conditions import is_folded, run_fold_worker, wait_until
from expired_runs import (
    EVENTS,
    EXEMPT_PROJECT_RUNS,
    OLD_NAMED_RUNS,
    OLD_RUNS,
    RUNS,
    YOUNG_RUNS,
    events_of,
    make_run,
    run_retention,
    without_payloads,
)
from frame_delivery import SHARDS, fold, make_frames
from oracle import project
from rebuild_checks import NEVER_STOP, find_mismatches, rebuild_all
from runfold.protocol.streams import agree_on_shards, connect, stream_key
from runfold_storage.archive.layout import FileLimits
from runfold_storage.archive.store import open_archive
from runfold_storage.checkpoints.positions import ensure_shards
from runfold_storage.errors import ArchiveUnusable, RestoreRefused
from runfold_storage.jobs import JobInterrupted, add_job
from runfold_storage.postgres import connections
from runfold_storage.retention.policies import Policy, set_policy
from runfold_storage.retention.run_deletion import delete_run
from runfold_workers.retention.restore import KIND, Progress, restore
from table_reader import read_dead_letters, read_projection


class Database(NamedTuple):
    """One with a connection to it."""

    url: str
    connection: psycopg.Connection


@pytest.fixture
def lost(deployment: None, database: psycopg.Connection, migrated_url: str) -> Database:
    """The one that is going to be lost."""
    fold(migrated_url, EVENTS)
    return Database(migrated_url, database)


@pytest.fixture
def new(other_url: str) -> Iterator[Database]:
    """An empty one."""
    with connections.connect(other_url, autocommit=True) as connection:
        yield Database(other_url, connection)


def run_restore(url: str, archive: Path, *, ledger: psycopg.Connection | None = None) -> Progress:
    with connections.connect(url, autocommit=True) as connection:
        job = add_job(connection, KIND, {})
        place = open_archive(str(archive))
        return restore(connection, job, NEVER_STOP, place, ledger=ledger)


def test_archive_and_ledger_make_it_whole(lost: Database, new: Database, tmp_path: Path) -> None:
    """Rows, attempts, statistics and events as if nothing had ever gone; what was deleted stays."""
    assert delete_run(lost.connection, OLD_RUNS[0][0]["run"])
    set_policy(lost.connection, Policy(None, payload_days=30))
    run_retention(lost.url, tmp_path)
    assert delete_run(lost.connection, OLD_RUNS[1][0]["run"])
    set_policy(lost.connection, Policy(None, payload_days=30, run_days=50, stats_days=90))
    set_policy(lost.connection, Policy("keeps"))
    run_retention(lost.url, tmp_path)
    assert delete_run(lost.connection, YOUNG_RUNS[0][0]["run"])
    lost.connection.execute(
        "DROP TABLE runs, nodes, rollups_hourly, rollups_daily, expired_hours CASCADE"
    )

    progress = run_restore(new.url, tmp_path, ledger=lost.connection)
    deleted = [*OLD_RUNS[:2], YOUNG_RUNS[0]]
    assert progress.events == sum(len(run) for run in RUNS if run not in deleted)
    expected = project(events_of([run for run in RUNS if run not in deleted]), SHARDS)
    assert read_projection(new.connection) == expected
    assert find_mismatches(new.connection) == []
    fold(new.url, events_of(deleted), first=10_000)
    assert read_projection(new.connection) == expected
    rebuild_all(new.connection)
    assert read_projection(new.connection) == expected

    again = run_restore(new.url, tmp_path)
    assert (again.events, again.runs, again.rollups) == (0, 0, 0)
    assert read_projection(new.connection) == expected


def test_only_the_archive(lost: Database, new: Database, tmp_path: Path) -> None:
    """All that it has; then retention may take it away again."""
    set_policy(lost.connection, Policy(None, payload_days=30, run_days=50))
    run_retention(lost.url, tmp_path / "old")
    run_restore(new.url, tmp_path / "old")
    gone = [*OLD_RUNS, *OLD_NAMED_RUNS, *EXEMPT_PROJECT_RUNS]
    expected = project(events_of(gone), SHARDS)
    assert read_projection(new.connection) == expected
    assert find_mismatches(new.connection) == []
    set_policy(new.connection, Policy(None, payload_days=30))
    run_retention(new.url, tmp_path / "new")
    assert read_projection(new.connection) == without_payloads(expected, gone)


def test_an_interrupted_one_goes_on(lost: Database, new: Database, tmp_path: Path) -> None:
    """After each step of it, and from where it was."""
    set_policy(lost.connection, Policy(None, payload_days=30, run_days=50))
    run_retention(lost.url, tmp_path, file_limits=FileLimits(group_rows=3))
    job = add_job(new.connection, KIND, {})
    stop = threading.Event()
    stop.set()
    files: list[int] = []
    while True:
        try:
            with connections.connect(new.url, autocommit=True) as connection:
                archive = open_archive(str(tmp_path))
                restore(connection, job, stop, archive, lambda p: files.append(p.files))
            break
        except JobInterrupted:
            assert len(files) < 500
    assert files == sorted(files)
    assert len(files) > 20
    gone = [*OLD_RUNS, *OLD_NAMED_RUNS, *EXEMPT_PROJECT_RUNS]
    assert read_projection(new.connection) == project(events_of(gone), SHARDS)
    assert find_mismatches(new.connection) == []


def test_rows_and_figures_without_events(lost: Database, new: Database, tmp_path: Path) -> None:
    """What was lost before there was an archive: rows without payloads, figures without rows."""
    set_policy(lost.connection, Policy(None, payload_days=30))
    run_retention(lost.url)
    set_policy(lost.connection, Policy(None, payload_days=30, run_days=90))
    run_retention(lost.url)
    set_policy(lost.connection, Policy(None, payload_days=30, run_days=50, stats_days=90))
    run_retention(lost.url, tmp_path)
    run_restore(new.url, tmp_path)
    expected = project(events_of([*OLD_RUNS, *OLD_NAMED_RUNS, *EXEMPT_PROJECT_RUNS]), SHARDS)
    rows = project(events_of([*OLD_RUNS[2:], *OLD_NAMED_RUNS, *EXEMPT_PROJECT_RUNS]), SHARDS)
    found = read_projection(new.connection)
    assert (found.runs, found.nodes, found.ledger) == (rows.runs, rows.nodes, {})
    assert found.stats == expected.stats
    assert find_mismatches(new.connection) == []
    fold(new.url, events_of(OLD_RUNS[2:]), first=10_000)
    assert read_projection(new.connection) == found
    again = run_restore(new.url, tmp_path)
    assert (again.runs, again.rollups) == (0, 0)
    assert read_projection(new.connection) == found


def test_workers_may_be_at_work(
    lost: Database, new: Database, redis_url: str, tmp_path: Path
) -> None:
    """The streams still have the youngest runs, and late events of those that come back."""
    set_policy(lost.connection, Policy(None, payload_days=30))
    run_retention(lost.url, tmp_path)
    late = [
        {**run[0], "type": "annotated", "id": 77, "tags": {"late": "yes"}}
        for run in (OLD_RUNS[2], OLD_NAMED_RUNS[0])
    ]
    young = [make_run(0.01) for _ in range(300)]
    with connect(redis_url) as client:
        agree_on_shards(client, SHARDS)
        with run_fold_worker(redis_url, new.url, SHARDS):
            for shard, fields in make_frames([*late, *events_of(young)], size=5):
                client.xadd(stream_key(shard), fields)
            run_restore(new.url, tmp_path)
            wait_until(lambda: is_folded(client, new.connection), what="everything to be folded")
    expected = project(
        events_of([*OLD_RUNS, *OLD_NAMED_RUNS, *EXEMPT_PROJECT_RUNS]) + late + events_of(young),
        SHARDS,
    )
    assert read_dead_letters(new.connection) == []
    assert read_projection(new.connection) == expected


def test_nonsense_is_refused(lost: Database, new: Database, tmp_path: Path) -> None:
    """In words that say what to do, and nothing is changed."""
    with pytest.raises(RestoreRefused, match="nothing in it"):
        run_restore(new.url, tmp_path / "nowhere")
    set_policy(lost.connection, Policy(None, payload_days=30, run_days=50))
    run_retention(lost.url, tmp_path)
    with pytest.raises(RestoreRefused, match="would count twice"):
        run_restore(lost.url, tmp_path)
    lost.connection.execute("UPDATE events SET shard = (shard + 1) % 4")
    with pytest.raises(RestoreRefused, match="does not belong to a deployment with 4 shards"):
        run_restore(new.url, tmp_path, ledger=lost.connection)
    new.connection.execute("DELETE FROM positions")
    ensure_shards(new.connection, SHARDS + 1)
    with pytest.raises(RestoreRefused, match=f"with {SHARDS} shards, and this database has 5"):
        run_restore(new.url, tmp_path)
    assert read_projection(new.connection).runs == {}


def test_a_damaged_file_is_named(lost: Database, new: Database, tmp_path: Path) -> None:
    """Nothing of it is taken for anything else."""
    set_policy(lost.connection, Policy(None, payload_days=30))
    run_retention(lost.url, tmp_path)
    damaged = sorted(tmp_path.glob("events/*/*.parquet"))[1]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    with pytest.raises(ArchiveUnusable, match=damaged.name):
        run_restore(new.url, tmp_path)
    damaged.write_bytes(whole)
    assert run_restore(new.url, tmp_path).events > 0
