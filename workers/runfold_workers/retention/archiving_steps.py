"""What retention takes away, behind files of an archive that hold it.

Invariant: nothing goes before a file that has it was written, read back and given its name
(`archive.steps`). So where the archive refuses, `ArchiveUnusable` is raised and what the step was
about stays. No transaction is open and no shard is held while files are written: the fold does not
notice how long that takes.
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
    """Each step is noted down, written, and taken away; `told` is given what it wrote."""

    def __init__(
        self,
        connection: psycopg.Connection,
        shards: Sequence[int],
        stop: threading.Event,
        archive: Archive,
        told: Callable[[int, int], None] = lambda _events, _runs: None,
    ) -> None:
        super().__init__(connection, shards, stop)
        self._archive = archive
        self._filling = ArchiveExporter(connection, archive, len(shards))
        self._told = told

    def begin(self) -> None:
        self._archive.check_writable()
        self._archive.remove_unfinished()
        super().begin()

    def payloads(self, shard: int, runs: Sequence[UUID]) -> None:
        step = journal.begin(self._connection, journal.PAYLOADS, shard=shard, runs=runs)
        self._do(step, lambda: self._filling.write_payloads(step))

    def rows(self, shard: int, runs: Sequence[UUID]) -> None:
        self._bury(shard, runs)
        step = journal.begin(self._connection, journal.ROWS, shard=shard, runs=runs)
        self._do(step, lambda: self._filling.write_rows(step))

    def week(self, week: date) -> None:
        step = journal.begin(self._connection, journal.WEEK, week=week)
        parted = partition_expiry.detached_name(week)
        self._do(step, lambda: self._filling.write_week(step, parted, self._shards))

    def rollups(self, shard: int, now: datetime) -> int:
        old = read_old_rollups(self._connection, shard, now, STEP_ROLLUPS)
        if not old:
            return 0
        identities = [each.identity for each in old]
        step = journal.begin(self._connection, journal.ROLLUPS, shard=shard, rollups=identities)
        self._write(step, lambda: self._filling.write_rollups(step, old))
        gone = self._remove_rollups(shard, identities)
        journal.end(self._connection, step)
        return gone

    def end(self) -> None:
        """Tell the archive which runs were deleted, so that they do not come back from it."""
        for shard in self._shards:
            while buried := read_unarchived(self._connection, shard, STEP_TOMBSTONES):
                self._tombstones(shard, buried)

    def _tombstones(self, shard: int, buried: list[Tombstone]) -> None:
        runs = [tombstone.run for tombstone in buried]
        step = journal.begin(self._connection, journal.TOMBSTONES, shard=shard, runs=runs)
        self._do(step, lambda: self._filling.write_tombstones(step, buried))

    def _do(self, step: Step, write: Callable[[], None]) -> None:
        self._write(step, write)
        self._take(step)

    def _write(self, step: Step, write: Callable[[], None]) -> None:
        crash_point("after_step_begun")
        write()
        crash_point("after_files_written")
        journal.note_written(self._connection, step)
        crash_point("after_step_written")
        self._told(*self._filling.take_counts())

    def _undo(self, step: Step) -> None:
        journal.undo(self._connection, self._archive, step)
