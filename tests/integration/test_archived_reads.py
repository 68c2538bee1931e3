"""Archived runs are shown as they were, and say that they are; deleted ones are not shown."""

import os
from pathlib import Path

import msgspec
import psycopg
import pytest

from expired_runs import (
    DAY_US,
    EVENTS,
    NOW_US,
    OLD_NAMED_RUNS,
    OLD_RUNS,
    events_of,
    make_run,
    run_retention,
)
from frame_delivery import SHARDS, fold
from oracle import Event
from runfold.protocol.ids import make_run_id
from runfold_storage.admin import Admin
from runfold_storage.archive.layout import FileLimits
from runfold_storage.archive.store import open_archive
from runfold_storage.errors import ArchiveUnusable
from runfold_storage.history import History
from runfold_storage.retention import run_expiry
from runfold_storage.retention.policies import Policy, set_policy

pytestmark = pytest.mark.usefixtures("deployment")


def make_detailed_run(days_ago: float, external_id: str | None = None) -> list[Event]:
    """One with all that details can show."""
    at_us = NOW_US - int(days_ago * DAY_US)
    common = {"run": external_id or make_run_id(at_us)}

    def event(number: int, kind: str, **fields: object) -> Event:
        return {**common, "type": kind, "id": number, "at_us": at_us + 1000 * number, **fields}

    return [
        event(
            0,
            "started",
            workflow="w",
            project="acme",
            inputs={"day": "2026-08-01"},
            trigger={"type": "schedule", "data": {"cron": "0 2 * * *"}},
            tags={"env": "prod"},
            metadata={"a": 1},
        ),
        event(1, "node_started", node="n", inputs={"x": [1, 2]}),
        event(2, "logged", node="n", stream="stdout", text="working\n"),
        event(3, "node_finished", node="n", status="failed", error={"type": "E", "stack": "at n"}),
        event(4, "node_started", node="n", attempt=2),
        event(5, "node_finished", node="n", attempt=2, status="completed", outputs={"y": 3}),
        event(6, "failed", error={"type": "E", "message": "no rows", "stack": "at w", "node": "n"}),
    ]


DETAILED = [make_detailed_run(70), make_detailed_run(71, "nightly/17"), make_detailed_run(40)]


def fold_told(url: str) -> None:
    fold(url, [*EVENTS, *events_of(DETAILED)])


def test_runs_and_payloads_are_shown_as_they_were(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Rows that went, and rows whose payloads went; only the words on where it is from differ."""
    fold_told(migrated_url)
    ids = [run[0]["run"] for run in DETAILED]
    with History(migrated_url, archive_url=str(tmp_path)) as history:
        before = [history.run(run) for run in ids]
        events = [history.events(run) for run in ids]
        logs = [history.logs(run, node="n") for run in ids]
        set_policy(database, Policy(None, payload_days=30, run_days=50))
        run_retention(migrated_url, tmp_path)
        after = [history.run(run) for run in ids]
        assert [(run.source, run.payloads) for run in after if run] == [
            ("archive", "archived"),
            ("archive", "archived"),
            ("database", "archived"),
        ]
        assert after[2] is not None
        assert after[2].payloads_removed_at is not None
        for was, is_ in zip(before, after, strict=True):
            assert was is not None
            assert is_ is not None
            same = msgspec.structs.replace(
                is_, source="database", payloads="kept", payloads_removed_at=None
            )
            assert same == was
        assert [history.events(run) for run in ids] == events
        assert [history.logs(run, node="n") for run in ids] == logs
        assert history.run(make_run_id(NOW_US - 70 * DAY_US)) is None
        assert history.run("no such run") is None


def test_pages_of_archived_events(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Cursors, types and limits are those of the ledger's pages, also across its going."""
    fold_told(migrated_url)
    run = DETAILED[0][0]["run"]
    with History(migrated_url, archive_url=str(tmp_path)) as history:
        first = history.events(run, limit=3)
        assert first is not None
        set_policy(database, Policy(None, payload_days=30, run_days=50))
        run_retention(migrated_url, tmp_path)
        assert history.events(run, limit=3) == first
        types = []
        after = first.next_cursor
        while after is not None:
            page = history.events(run, limit=2, after=after)
            assert page is not None
            types += [msgspec.json.decode(raw)["type"] for raw in page.events]
            after = page.next_cursor
        assert types == [event["type"] for event in DETAILED[0][3:]]
        nodes = history.events(run, types=["node_started", "failed"])
        assert nodes is not None
        assert len(nodes.events) == 3


def test_what_is_gone_says_so(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Without an archive: payloads that were removed, and when; lists go on meanwhile."""
    fold_told(migrated_url)
    run = DETAILED[0][0]["run"]
    set_policy(database, Policy(None, payload_days=30))
    with History(migrated_url) as history:
        detail = history.run(run)
        assert detail is not None
        assert (detail.payloads, detail.payloads_removed_at) == ("kept", None)
        everyone = history.runs()
        for shard in range(SHARDS):
            rows = database.execute("SELECT run FROM runs WHERE shard = %s", (shard,)).fetchall()
            now = everyone.runs[0].started_at
            assert now is not None
            run_expiry.mark_expired(database, shard, [run for (run,) in rows], now, gone=False)
        assert history.runs().runs == everyone.runs  # marked, and at it
        run_retention(migrated_url)
        detail = history.run(run)
        assert detail is not None
        assert (detail.source, detail.payloads, detail.inputs) == ("database", "removed", None)
        assert detail.payloads_removed_at is not None
        assert detail.error is not None
        assert detail.error.message == "no rows"
        assert detail.error.stack is None


def test_an_archive_that_cannot_be_read(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path
) -> None:
    """A row is shown without its payloads, and says why; what only the archive has is an error."""
    fold_told(migrated_url)
    set_policy(database, Policy(None, payload_days=30, run_days=50))
    archive = tmp_path / "archive"
    run_retention(migrated_url, archive)
    for file in archive.rglob("*.parquet"):
        file.write_bytes(b"these are no columns")
    with History(migrated_url, archive_url=str(archive)) as history:
        row = history.run(DETAILED[2][0]["run"])
        assert row is not None
        assert row.payloads == "unavailable"
        for run in (DETAILED[0][0]["run"], "nightly/17"):
            with pytest.raises(ArchiveUnusable, match="archive"):
                history.run(run)


def test_a_deleted_run_does_not_come_back(
    database: psycopg.Connection, migrated_url: str, other_url: str, tmp_path: Path
) -> None:
    """Deleted before, after its payloads went, after its row went; also when tables are lost."""
    fold_told(migrated_url)
    upkeep = Admin(migrated_url, archive_url=str(tmp_path))
    assert upkeep.delete_run(OLD_RUNS[0][0]["run"])
    set_policy(database, Policy(None, payload_days=30))
    run_retention(migrated_url, tmp_path)
    assert upkeep.delete_run(OLD_RUNS[1][0]["run"])
    set_policy(database, Policy(None, payload_days=30, run_days=50))
    run_retention(migrated_url, tmp_path)
    with History(migrated_url, archive_url=str(tmp_path)) as history:
        for run in (DETAILED[0][0]["run"], "nightly/17"):
            assert history.run(run) is not None
            assert upkeep.delete_run(run)
            assert not upkeep.delete_run(run)
        assert not upkeep.delete_run("no such run")
        gone = [*OLD_RUNS[:2], *DETAILED[:2]]
        assert [history.run(run[0]["run"]) for run in gone] == [None] * 4
        assert [history.events(run[0]["run"]) for run in gone] == [None] * 4
        assert history.run(OLD_NAMED_RUNS[0][0]["run"]) is not None
    run_retention(migrated_url, tmp_path)
    with History(other_url, archive_url=str(tmp_path)) as history:
        assert [history.run(run[0]["run"]) for run in gone] == [None] * 4
        left = history.run(OLD_NAMED_RUNS[0][0]["run"])
        assert left is not None
        assert (left.source, left.workflow) == ("archive", "w")


def test_one_row_group_is_read(
    database: psycopg.Connection, migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the files of a week, whatever their number: those of a key's shard and range."""
    runs = [make_run(100 - n / 1000) for n in range(400)]
    fold(migrated_url, events_of(runs))
    set_policy(database, Policy(None, payload_days=30))
    limits = FileLimits(group_rows=50, file_bytes=20_000)
    run_retention(migrated_url, tmp_path, file_limits=limits)
    opened: list[str] = []
    reading = type(open_archive(str(tmp_path))).reading

    def noted(archive: object, path: str) -> object:
        opened.append(os.path.dirname(path).split("/")[0])
        return reading(archive, path)  # type: ignore[arg-type]

    monkeypatch.setattr("runfold_storage.archive.store.Archive.reading", noted)
    with History(migrated_url, archive_url=str(tmp_path)) as history:
        detail = history.run(runs[123][0]["run"])
    assert detail is not None
    assert detail.payloads == "archived"
    assert opened == ["events"]
