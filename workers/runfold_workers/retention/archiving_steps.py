"""The steps of retention with an archive: write expired data there, then delete it.

No transaction is open and no shard is locked while files are written.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

import psycopg

from runfold.crash_points import crash_point
from runfold_storage.archive import journal
from runfold_storage.archive.exporter import ArchiveExporter
from runfold_storage.archive.journal import Step, Tombstone, read_unarchived
from runfold_storage.archive.store import Archive
from runfold_storage.retention import partition_expiry
from runfold_storage.retention.rollup_expiry import read_old_rollups

from .expiry_steps import ExpirySteps

STEP_ROLLUPS: Final = 20_000
STEP_TOMBSTONES: Final = 50_000


class ArchivingSteps(ExpirySteps):
    """Journals, writes and deletes each step; `on_written` gets its numbers of events and runs."""

    def __init__(
        self,
        connection: psycopg.Connection,
        shards: Sequence[int],
        stop: threading.Event,
        archive: Archive,
        on_written: Callable[[int, int], None] = lambda _events, _runs: None,
    ) -> None:
        super().__init__(connection, shards, stop)
        self._archive = archive
        self._exporter = ArchiveExporter(connection, archive, len(shards))
        self._on_written = on_written

    def begin(self) -> None:
        self._archive.check_writable()
        self._archive.remove_unfinished()
        super().begin()

    def payloads(self, shard: int, runs: Sequence[UUID]) -> None:
        step = journal.begin(self._connection, journal.PAYLOADS, shard=shard, runs=list(runs))
        self._do(step, lambda: self._exporter.write_payloads(step))

    def rows(self, shard: int, runs: Sequence[UUID]) -> None:
        self._add_tombstones(shard, runs)
        step = journal.begin(self._connection, journal.ROWS, shard=shard, runs=list(runs))
        self._do(step, lambda: self._exporter.write_rows(step))

    def week(self, week: date) -> None:
        step = journal.begin(self._connection, journal.WEEK, week=week)
        table = partition_expiry.detached_name(week)
        self._do(step, lambda: self._exporter.write_week(step, table, self._shards))

    def rollups(self, shard: int, now: datetime) -> int:
        old = read_old_rollups(self._connection, shard, now, STEP_ROLLUPS)
        if not old:
            return 0
        identities = [each.identity for each in old]
        step = journal.begin(self._connection, journal.ROLLUPS, shard=shard, rollups=identities)
        self._write(step, lambda: self._exporter.write_rollups(step, old))
        deleted = self._remove_rollups(shard, identities)
        journal.end(self._connection, step)
        return deleted

    def end(self) -> None:
        """Archive which runs were deleted, so that a restore does not bring them back."""
        for shard in self._shards:
            while tombstones := read_unarchived(self._connection, shard, STEP_TOMBSTONES):
                self._tombstones(shard, tombstones)

    def _tombstones(self, shard: int, tombstones: list[Tombstone]) -> None:
        runs = [tombstone.run for tombstone in tombstones]
        step = journal.begin(self._connection, journal.TOMBSTONES, shard=shard, runs=runs)
        self._do(step, lambda: self._exporter.write_tombstones(step, tombstones))

    def _do(self, step: Step, write: Callable[[], None]) -> None:
        self._write(step, write)
        self._delete(step)

    def _write(self, step: Step, write: Callable[[], None]) -> None:
        crash_point("after_step_begun")
        write()
        crash_point("after_files_written")
        journal.mark_written(self._connection, step)
        crash_point("after_step_written")
        self._on_written(*self._exporter.take_counts())

    def _undo(self, step: Step) -> None:
        journal.undo(self._connection, self._archive, step)
