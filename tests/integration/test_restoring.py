"""Out of the archive into an empty database: as it was before anything went."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deliveries import SHARDS, framed
from old_runs import (
    EVENTS,
    KEPT_PROJECT,
    NEVER,
    OLD,
    OLD_OWN,
    RUNS,
    YOUNG,
    a_run,
    differences,
    fold,
    rebuild_all,
    run_retention,
    without_payloads,
)
from oracle import Event, project
from runfold.streams import agree_on_shards, connect, stream_key
from runfold_storage import databases
from runfold_storage.archive import writing
from runfold_storage.archive.place import open_archive
from runfold_storage.batches import prepare_session
from runfold_storage.deletions import delete_run
from runfold_storage.errors import ArchiveUnusable, RestoreRefused
from runfold_storage.jobs import Interrupted, add_job
from runfold_storage.positions import ensure_shards
from runfold_storage.retention import Policy, set_policy
from runfold_workers.restoring import KIND, Progress, restore
from tables import dead_letters, read_projection
from waiting import is_folded, wait_until, worker_thread


@pytest.fixture
def database(migrated_url: str) -> Iterator[psycopg.Connection]:
    """The one that is going to be lost."""
    with databases.connect(migrated_url, autocommit=True) as connection:
        ensure_shards(connection, SHARDS)
        prepare_session(connection)
        fold(migrated_url, EVENTS)
        yield connection


@pytest.fixture
def other(other_url: str) -> Iterator[psycopg.Connection]:
    """An empty one."""
    with databases.connect(other_url, autocommit=True) as connection:
        yield connection


def run_restore(url: str, archive: Path, *, ledger: psycopg.Connection | None = None) -> Progress:
    with databases.connect(url, autocommit=True) as connection:
        job = add_job(connection, KIND, {})
        place = open_archive(str(archive))
        return restore(connection, job, NEVER, place, ledger=ledger)


def events_of(runs: list[list[Event]]) -> list[Event]:
    return [event for run in runs for event in run]


def test_archive_and_ledger_make_it_whole(
    database: psycopg.Connection,
    migrated_url: str,
    other: psycopg.Connection,
    other_url: str,
    tmp_path: Path,
) -> None:
    """Rows, attempts, statistics and events as if nothing had ever gone; what was deleted stays."""
    assert delete_run(database, OLD[0][0]["run"])
    set_policy(database, Policy(None, payload_days=30))
    run_retention(migrated_url, tmp_path)
    assert delete_run(database, OLD[1][0]["run"])
    set_policy(database, Policy(None, payload_days=30, run_days=50, stats_days=90))
    set_policy(database, Policy("keeps"))
    run_retention(migrated_url, tmp_path)
    assert delete_run(database, YOUNG[0][0]["run"])
    database.execute("DROP TABLE runs, nodes, stats, stats_days, aged_hours CASCADE")

    progress = run_restore(other_url, tmp_path, ledger=database)
    deleted = [*OLD[:2], YOUNG[0]]
    assert progress.events == sum(len(run) for run in RUNS if run not in deleted)
    expected = project(events_of([run for run in RUNS if run not in deleted]), SHARDS)
    assert read_projection(other) == expected
    assert differences(other_url) == []
    fold(other_url, events_of(deleted), first=10_000)
    assert read_projection(other) == expected
    rebuild_all(other_url)
    assert read_projection(other) == expected

    again = run_restore(other_url, tmp_path)
    assert (again.events, again.runs, again.rollups) == (0, 0, 0)
    assert read_projection(other) == expected


def test_only_the_archive(
    database: psycopg.Connection,
    migrated_url: str,
    other: psycopg.Connection,
    other_url: str,
    tmp_path: Path,
) -> None:
    """All that it has; then retention may take it away again."""
    set_policy(database, Policy(None, payload_days=30, run_days=50))
    run_retention(migrated_url, tmp_path / "old")
    run_restore(other_url, tmp_path / "old")
    gone = [*OLD, *OLD_OWN, *KEPT_PROJECT]
    expected = project(events_of(gone), SHARDS)
    assert read_projection(other) == expected
    assert differences(other_url) == []
    set_policy(other, Policy(None, payload_days=30))
    run_retention(other_url, tmp_path / "new")
    assert read_projection(other) == without_payloads(expected, gone)


def test_an_interrupted_one_goes_on(
    database: psycopg.Connection,
    migrated_url: str,
    other: psycopg.Connection,
    other_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After each step of it, and from where it was."""
    monkeypatch.setattr(writing, "GROUP_ROWS", 3)
    set_policy(database, Policy(None, payload_days=30, run_days=50))
    run_retention(migrated_url, tmp_path)
    job = add_job(other, KIND, {})
    stop = threading.Event()
    stop.set()
    files: list[int] = []
    while True:
        try:
            with databases.connect(other_url, autocommit=True) as connection:
                archive = open_archive(str(tmp_path))
                restore(connection, job, stop, archive, lambda p: files.append(p.files))
            break
        except Interrupted:
            assert len(files) < 500
    assert files == sorted(files)
    assert len(files) > 20
    gone = [*OLD, *OLD_OWN, *KEPT_PROJECT]
    assert read_projection(other) == project(events_of(gone), SHARDS)
    assert differences(other_url) == []


def test_rows_and_figures_without_events(
    database: psycopg.Connection,
    migrated_url: str,
    other: psycopg.Connection,
    other_url: str,
    tmp_path: Path,
) -> None:
    """What was lost before there was an archive: rows without payloads, figures without rows."""
    set_policy(database, Policy(None, payload_days=30))
    run_retention(migrated_url)
    set_policy(database, Policy(None, payload_days=30, run_days=90))
    run_retention(migrated_url)
    set_policy(database, Policy(None, payload_days=30, run_days=50, stats_days=90))
    run_retention(migrated_url, tmp_path)
    run_restore(other_url, tmp_path)
    expected = project(events_of([*OLD, *OLD_OWN, *KEPT_PROJECT]), SHARDS)
    rows = project(events_of([*OLD[2:], *OLD_OWN, *KEPT_PROJECT]), SHARDS)
    found = read_projection(other)
    assert (found.runs, found.nodes, found.ledger) == (rows.runs, rows.nodes, {})
    assert found.stats == expected.stats
    assert differences(other_url) == []
    fold(other_url, events_of(OLD[2:]), first=10_000)
    assert read_projection(other) == found
    again = run_restore(other_url, tmp_path)
    assert (again.runs, again.rollups) == (0, 0)
    assert read_projection(other) == found


def test_workers_may_be_at_work(
    database: psycopg.Connection,
    migrated_url: str,
    other: psycopg.Connection,
    other_url: str,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """The streams still have the youngest runs, and late events of those that come back."""
    set_policy(database, Policy(None, payload_days=30))
    run_retention(migrated_url, tmp_path)
    late = [
        {**run[0], "type": "annotated", "id": 77, "tags": {"late": "yes"}}
        for run in (OLD[2], OLD_OWN[0])
    ]
    new = [a_run(0.01) for _ in range(300)]
    with connect(redis_url) as client:
        agree_on_shards(client, SHARDS)
        with worker_thread(redis_url, other_url, SHARDS):
            for shard, fields in framed([*late, *events_of(new)], size=5):
                client.xadd(stream_key(shard), fields)
            run_restore(other_url, tmp_path)
            wait_until(lambda: is_folded(client, other), what="everything to be folded")
    expected = project(events_of([*OLD, *OLD_OWN, *KEPT_PROJECT]) + late + events_of(new), SHARDS)
    assert dead_letters(other) == []
    assert read_projection(other) == expected


def test_nonsense_is_refused(
    database: psycopg.Connection,
    migrated_url: str,
    other: psycopg.Connection,
    other_url: str,
    tmp_path: Path,
) -> None:
    """In words that say what to do, and nothing is changed."""
    with pytest.raises(RestoreRefused, match="nothing in it"):
        run_restore(other_url, tmp_path / "nowhere")
    set_policy(database, Policy(None, payload_days=30, run_days=50))
    run_retention(migrated_url, tmp_path)
    with pytest.raises(RestoreRefused, match="would count twice"):
        run_restore(migrated_url, tmp_path)
    database.execute("UPDATE events SET shard = (shard + 1) % 4")
    with pytest.raises(RestoreRefused, match="the ledger is not of a deployment with 4 shards"):
        run_restore(other_url, tmp_path, ledger=database)
    other.execute("DELETE FROM positions")
    ensure_shards(other, SHARDS + 1)
    with pytest.raises(RestoreRefused, match=f"with {SHARDS} shards, and this database has 5"):
        run_restore(other_url, tmp_path)
    assert read_projection(other).runs == {}


def test_a_damaged_file_is_named(
    database: psycopg.Connection,
    migrated_url: str,
    other_url: str,
    tmp_path: Path,
) -> None:
    """Nothing of it is taken for anything else."""
    set_policy(database, Policy(None, payload_days=30))
    run_retention(migrated_url, tmp_path)
    damaged = sorted(tmp_path.glob("events/*/*.parquet"))[1]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    with pytest.raises(ArchiveUnusable, match=damaged.name):
        run_restore(other_url, tmp_path)
    damaged.write_bytes(whole)
    assert run_restore(other_url, tmp_path).events > 0
