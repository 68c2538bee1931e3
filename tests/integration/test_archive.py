"""The archive: what goes is there before, once, whatever is killed or refused meanwhile."""

from collections import Counter
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from expired_runs import (
    EVENTS,
    EXEMPT_PROJECT_RUNS,
    OLD_NAMED_RUNS,
    OLD_RUNS,
    YOUNG_RUNS,
    events_of,
    find_archived,
    make_run,
    read_archive_rows,
    run_keys_of,
    run_retention,
    without_payloads,
    without_rows,
)
from frame_delivery import SHARDS, fold
from oracle import Event, project
from rebuild_checks import find_mismatches
from runfold.protocol.ids import run_key
from runfold.protocol.streams import shard_of
from runfold_storage.archive.layout import FileLimits
from runfold_storage.archive.purge import purge
from runfold_storage.archive.store import Archive, open_archive
from runfold_storage.checkpoints.incidents import read_incidents
from runfold_storage.errors import ArchiveUnusable
from runfold_storage.retention.policies import Policy, set_policy
from runfold_storage.retention.run_deletion import delete_run
from table_reader import read_projection

pytestmark = pytest.mark.usefixtures("deployment")

GONE = [*OLD_RUNS, *OLD_NAMED_RUNS]


def assert_archived_once(archive: Path, runs: list[list[Event]]) -> None:
    """The events and the rows of these runs, each once, and no others."""
    events = Counter((row["run"], row["id"]) for row in read_archive_rows(archive, "events"))
    assert events == {(each["run"], each["id"]): 1 for run in runs for each in run}
    names = [run[0]["run"] for run in runs]
    assert Counter(row["run"] for row in read_archive_rows(archive, "runs")) == dict.fromkeys(
        names, 1
    )
    assert Counter(row["run"] for row in read_archive_rows(archive, "nodes")) == dict.fromkeys(
        names, 1
    )


def test_what_goes_is_archived_once(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Weeks as a whole, single runs, ids of callers' own; rows that go later are there already."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy("acme", payload_days=30))
    progress = run_retention(migrated_url, tmp_path)
    assert progress.partitions
    assert progress.payloads == progress.archived_runs == len(GONE)
    assert progress.archived_events == sum(map(len, GONE))
    assert_archived_once(tmp_path, GONE)
    assert read_projection(database) == without_payloads(project(EVENTS, SHARDS), GONE)

    set_policy(database, Policy("acme", payload_days=30, run_days=65))
    later = run_retention(migrated_url, tmp_path)
    assert (later.runs, later.archived_events, later.archived_runs) == (len(OLD_RUNS[:3]) + 1, 0, 0)
    assert_archived_once(tmp_path, GONE)
    assert find_mismatches(database) == []


def test_files_have_what_the_ledger_had(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Bodies byte for byte, times to the microsecond, in files that a key leads to."""
    fold(migrated_url, EVENTS)
    ledger = {
        (run.bytes, event_id): (at_us, kind, body)
        for run, event_id, at_us, kind, body in database.execute(
            "SELECT run, id, (extract(epoch FROM at) * 1e6)::bigint, type::text, body FROM events"
        )
    }
    set_policy(database, Policy(None, payload_days=1))
    run_retention(migrated_url, tmp_path)
    for run in [*GONE, *EXEMPT_PROJECT_RUNS]:
        key = run_key(run[0]["run"]).bytes
        found = {each.id: each[2:] for each in find_archived(tmp_path, run)}
        assert found == {each["id"]: ledger[key, each["id"]] for each in run}
    assert not any(find_archived(tmp_path, run) for run in YOUNG_RUNS[2:])


def test_rows_and_figures_are_archived(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Also of runs whose events went before there was an archive."""
    fold(migrated_url, EVENTS)
    before = project(EVENTS, SHARDS)
    set_policy(database, Policy(None, payload_days=30))
    run_retention(migrated_url)
    set_policy(database, Policy(None, payload_days=30, run_days=50, stats_days=90))
    progress = run_retention(migrated_url, tmp_path)
    gone = [*GONE, *EXEMPT_PROJECT_RUNS]
    assert progress.archived_events == 0
    assert {row["run"] for row in read_archive_rows(tmp_path, "runs")} == {
        run[0]["run"] for run in gone
    }
    rollups = project(events_of(OLD_RUNS[:2]), SHARDS).stats
    assert progress.rollups == len(rollups)
    found = Counter(
        (row["node"], row["status"], row["n"]) for row in read_archive_rows(tmp_path, "stats")
    )
    assert found == Counter((key.node, key.status, stat.n) for key, stat in rollups.items())
    after = read_projection(database)
    assert after.runs == without_rows(before, gone).runs
    assert find_mismatches(database) == []


def test_nothing_is_deleted_when_the_archive_fails(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """And it is an incident; once it takes files again, what is due goes."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=50, stats_days=90))
    before = read_projection(database)
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(ArchiveUnusable, match="taken"):
        run_retention(migrated_url, tmp_path / "taken")
    assert read_projection(database) == before
    assert [each.kind for each in read_incidents(database.execute)] == ["archive_failed"]
    fold(migrated_url, make_run(0.01), first=10_000)
    assert run_retention(migrated_url, tmp_path / "free").runs == len(GONE) + 1


@pytest.mark.parametrize("refused", [1, 2, 5, 8])
def test_an_archive_that_fails_halfway(
    database: psycopg.Connection,
    migrated_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: int,
) -> None:
    """A disk that is full from some file on: what is not there has not gone, and comes once."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy("acme", payload_days=30, run_days=65))
    publish = Archive.publish
    files = 0

    def publish_some(archive: Archive, *arguments: object) -> str:
        nonlocal files
        files += 1
        if files >= refused:
            raise ArchiveUnusable("no space left on device")
        return publish(archive, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "publish", publish_some)
        with pytest.raises(ArchiveUnusable, match="no space"):
            run_retention(migrated_url, tmp_path)
    _assert_in_one_place(database, tmp_path)
    run_retention(migrated_url, tmp_path)
    assert_archived_once(tmp_path, GONE)
    assert find_mismatches(database) == []


def _assert_in_one_place(database: psycopg.Connection, archive: Path) -> None:
    """Each event is in the ledger, in a week that is detached, or in a complete file."""
    tables = ["events"] + [
        name
        for (name,) in database.execute(
            r"SELECT relname FROM pg_class WHERE relname LIKE 'events\_%\_detached'"
        )
    ]
    left = {
        (run.bytes, event_id)
        for table in tables
        for run, event_id in database.execute(f"SELECT run, id FROM {table}")
    }
    left |= {(row["key"], row["id"]) for row in read_archive_rows(archive, "events")}
    assert left == {(run_key(each["run"]).bytes, each["id"]) for each in EVENTS}


def test_a_large_archive_is_cut_into_files(
    database: psycopg.Connection,
    migrated_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no run is cut in two; each is found in its own file."""
    runs = [make_run(100) for _ in range(60)]
    fold(migrated_url, events_of(runs))
    set_policy(database, Policy(None, payload_days=30))
    limits = FileLimits(group_rows=7, file_bytes=1500)
    run_retention(migrated_url, tmp_path, file_limits=limits)
    assert_archived_once(tmp_path, runs)
    files = list(tmp_path.glob("events/*/*.parquet"))
    assert len(files) > 2 * SHARDS
    of_files = [
        set(pq.read_table(file, partitioning=None).column("run").to_pylist()) for file in files
    ]
    assert sum(map(len, of_files)) == len(runs)
    for run in runs:
        assert len(find_archived(tmp_path, run)) == len(run)


def test_tombstones_are_archived(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Each once, and their events are in no file."""
    fold(migrated_url, EVENTS)
    assert delete_run(database, OLD_RUNS[0][0]["run"])
    set_policy(database, Policy(None, payload_days=30))
    run_retention(migrated_url, tmp_path)
    assert not find_archived(tmp_path, OLD_RUNS[0])
    assert delete_run(database, OLD_RUNS[1][0]["run"])
    for _ in range(2):
        run_retention(migrated_url, tmp_path)
    found = [row["key"] for row in read_archive_rows(tmp_path, "tombstones")]
    assert sorted(found) == sorted(run_keys_of(OLD_RUNS[:2]))


def test_deleted_runs_are_purged(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Out of the files that have them, and nothing else is touched."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30))
    run_retention(migrated_url, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    deleted = [OLD_RUNS[1], OLD_NAMED_RUNS[0]]
    archive = open_archive(str(tmp_path))
    purge(archive, run_keys_of(deleted), lambda _: None)
    assert_archived_once(
        tmp_path, [*(run for run in OLD_RUNS if run not in deleted), *EXEMPT_PROJECT_RUNS]
    )
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    of_deleted = {path for path, content in before.items() if after.get(path) != content}
    assert {path.parent.parent.name for path in of_deleted} == {"events", "nodes", "runs"}
    assert len(of_deleted) == 6
    for run in (OLD_RUNS[0], OLD_RUNS[2], OLD_RUNS[3], EXEMPT_PROJECT_RUNS[0]):
        assert len(find_archived(tmp_path, run)) == len(run)
    assert purge(archive, run_keys_of(deleted), lambda _: None) == (0, 0)


def test_a_file_is_purged_of_some(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """The first, the last and one in between: its name follows, the others stay."""
    runs = [
        run for run in (make_run(100) for _ in range(80)) if shard_of(run[0]["run"], SHARDS) == 1
    ]
    runs.sort(key=lambda run: run_key(run[0]["run"]))
    fold(migrated_url, events_of(runs))
    set_policy(database, Policy(None, payload_days=30))
    run_retention(migrated_url, tmp_path)
    deleted = [runs[0], runs[5], runs[-1]]
    archive = open_archive(str(tmp_path))
    assert purge(archive, run_keys_of(deleted), lambda _: None) == (3, 4 * len(deleted))
    left = [run for run in runs if run not in deleted]
    assert_archived_once(tmp_path, left)
    for run in left:
        assert len(find_archived(tmp_path, run)) == len(run)
