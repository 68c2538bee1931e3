"""The steps of retention: delete expired data in short transactions that each lock one shard.

With an archive, a step is journaled and its data written there first. No transaction is open and no
shard is locked while files are written.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID, uuid4

import psycopg

from runfold.crash_points import crash_point
from runfold_storage.archive import journal
from runfold_storage.archive.layout import DEFAULT_LIMITS, FileLimits
from runfold_storage.checkpoints.throttle import ShardThrottle
from runfold_storage.retention import partition_expiry, run_expiry
from runfold_storage.retention.rollup_expiry import read_old_rollups, remove_rollups
from runfold_storage.retention.run_deletion import purge

if TYPE_CHECKING:  # needs pyarrow, which is optional
    from runfold_storage.archive.store import Archive

STEP_ROLLUPS: Final = 2_000
ARCHIVED_ROLLUPS: Final = 20_000
ARCHIVED_TOMBSTONES: Final = 50_000
"""In one step; in the archive, each step is a file."""
WEIGHT: Final = 5
"""Rows of a run with its attempts, or of a rollup with its day, for the throttle."""

Item = TypeVar("Item")


class RetentionSteps:
    """The steps of one retention job; no other one runs at the same time.

    `on_written` gets the numbers of events and runs that a step has archived.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        shards: Sequence[int],
        stop: threading.Event,
        archive: "Archive | None",
        on_written: Callable[[int, int], None],
        file_limits: FileLimits = DEFAULT_LIMITS,
    ) -> None:
        self._connection = connection
        self._shards = shards
        self._pace = ShardThrottle(connection, stop)
        self._archive = archive
        self._exporter = None
        self._on_written = on_written
        if archive is not None:
            from runfold_storage.archive.exporter import ArchiveExporter

            self._exporter = ArchiveExporter(connection, archive, len(shards), file_limits)

    def begin(self) -> None:
        """Finish the steps of a dead process: delete what is archived, undo the rest."""
        if self._archive is not None:
            self._archive.check_writable()
            self._archive.remove_unfinished()
        for step in journal.read_steps(self._connection):
            if step.is_written:
                self._delete(step)
            else:
                journal.undo(self._connection, self._archive, step)

    def mark(self, shard: int, runs: Sequence[UUID], now: datetime, *, gone: bool) -> list[UUID]:
        """Mark those runs that are still due, so that they take no more events; return them."""
        marked: list[UUID] = []
        for portion in self._portions(runs):
            marked += run_expiry.mark_expired(self._connection, shard, portion, now, gone=gone)
            crash_point("after_marking")
        return marked

    def payloads(self, shard: int, runs: Sequence[UUID]) -> None:
        """Delete the events of marked runs."""
        self._run(journal.PAYLOADS, shard=shard, runs=list(runs))

    def rows(self, shard: int, runs: Sequence[UUID]) -> None:
        """Delete the rows of due runs, leaving tombstones."""
        for portion in self._portions(runs):
            run_expiry.add_expiry_tombstones(self._connection, shard, portion)
        self._run(journal.ROWS, shard=shard, runs=list(runs))

    def week(self, week: date) -> None:
        """Drop a detached week of the ledger."""
        self._run(journal.WEEK, week=week)

    def rollups(self, shard: int, now: datetime) -> int:
        """Delete some of the due statistics; return how many, 0 if there are no more."""
        most = STEP_ROLLUPS if self._archive is None else ARCHIVED_ROLLUPS
        old = read_old_rollups(self._connection, shard, now, most)
        if not old:
            return 0
        identities = [each.identity for each in old]
        return self._run(journal.ROLLUPS, old, shard=shard, rollups=identities)

    def end(self) -> None:
        """Archive which runs were deleted, so that a restore does not bring them back."""
        for shard in self._shards if self._archive is not None else ():
            while found := journal.read_unarchived(self._connection, shard, ARCHIVED_TOMBSTONES):
                runs = [tombstone.run for tombstone in found]
                self._run(journal.TOMBSTONES, found, shard=shard, runs=runs)

    def _run(self, kind: str, rows: Sequence[Any] = (), **what: Any) -> int:
        """Archive the data of a step, which are `rows` if given, and delete it."""
        step = journal.Step(uuid4(), kind, **what)
        if self._exporter is not None:
            journal.begin(self._connection, step)
            crash_point("after_step_begun")
            counts = self._exporter.write(step, rows)
            crash_point("after_files_written")
            journal.mark_written(self._connection, step)
            crash_point("after_step_written")
            self._on_written(*counts)
        return self._delete(step)

    def _delete(self, step: journal.Step) -> int:
        """Delete the data of a step, or the rest of it; return the number of rollups."""
        if step.week is not None:
            with self._connection.transaction():
                partition_expiry.drop_week(self._connection, step.week)
                journal.end(self._connection, step)
            return 0
        assert step.shard is not None
        rollups = 0
        if step.kind == journal.PAYLOADS:
            for runs in self._portions(step.runs):
                purge(self._connection, step.shard, runs)
                run_expiry.complete_expiry(self._connection, step.shard, runs)
        elif step.kind == journal.ROWS:
            for runs in self._portions(step.runs):
                run_expiry.delete_expired_rows(self._connection, step.shard, runs)
        elif step.kind == journal.ROLLUPS:
            for identities in self._portions(step.rollups):
                rollups += remove_rollups(self._connection, step.shard, identities)
        elif step.kind == journal.TOMBSTONES:
            journal.mark_archived(self._connection, step.shard, step.runs)
        crash_point("before_step_end")
        journal.end(self._connection, step)
        return rollups

    def _portions(self, items: Sequence[Item]) -> Iterator[list[Item]]:
        """Yield the items of one transaction each."""
        return self._pace.steps((item, WEIGHT) for item in items)
