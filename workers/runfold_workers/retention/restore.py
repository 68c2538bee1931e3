"""The restore job: brings the archive's data back into a database.

The order: tombstones, so that deleted runs stay deleted; events with the rows of their runs, also
those of another ledger that can still be read; a fold of all runs in the ledger; rows, attempts and
statistics of runs without events. It may run while workers fold, and again: existing data stays.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct

from runfold_storage.archive import restore_writer
from runfold_storage.archive.layout import EVENTS, KINDS, NODES, RUNS, STATS, TOMBSTONES
from runfold_storage.archive.schema import to_node, to_run
from runfold_storage.archive.store import Archive, files_of, read_groups
from runfold_storage.checkpoints.positions import count_shards, ensure_shards
from runfold_storage.checkpoints.throttle import ShardThrottle
from runfold_storage.errors import RestoreRefused
from runfold_storage.jobs import finish_job, lock_kind, resume_job
from runfold_storage.ledger.events import (
    LedgerEvent,
    check_shard,
    load_deleted,
    read_deleted,
    read_pages,
)
from runfold_storage.ledger.partitions import ensure_weeks, week_of
from runfold_storage.ledger.run_keys import BEFORE_ALL
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.records.rollup import ROLLUP_KEY, ROLLUP_VALUES, RollupKey, RollupValues
from runfold_workers.integrity.correct import correct_runs
from runfold_workers.integrity.rebuild import repairable
from runfold_workers.integrity.selection import Selection
from runfold_workers.integrity.verify import verify_shard

from . import job

KIND: Final = "restore"
LEDGER, FOLD = "ledger", "fold"
ORDER: Final = (TOMBSTONES, LEDGER, EVENTS, FOLD, RUNS, NODES, STATS)

Row = dict[str, Any]


class Progress(Struct):
    """The progress of the job, stored in `jobs`."""

    kinds: list[str] = msgspec.field(default_factory=lambda: list(ORDER))
    """The kinds that are left."""
    path: str = ""
    """The last file of the first kind that was begun."""
    group: int = -1
    """Its last row group that was restored."""
    after: dict[str, str | None] = {}
    """By shard the last key that was folded, in hexadecimal; null when the shard is done."""
    files: int = 0
    events: int = 0
    """Events that were missing."""
    runs: int = 0
    """Runs that were folded, and runs of which only the row was archived."""
    rollups: int = 0


def restore(
    connection: psycopg.Connection,
    job_id: UUID,
    stop: threading.Event,
    archive: Archive,
    on_progress: Callable[[Progress], None] = lambda _: None,
    *,
    ledger: psycopg.Connection | None = None,
) -> Progress:
    """Do or resume the restore job.

    Raise `JobInterrupted`, `JobLocked`, `ArchiveUnusable` or `RestoreRefused`. The connection is in
    autocommit mode, for this job only; `ledger` is another database whose `events` are copied too.
    """
    prepare_session(connection)
    with lock_kind(connection, job.KIND):
        check(connection, archive)
        job_steps = resume_job(connection, job_id, KIND, Progress, stop, on_progress)
        with job_steps as (_, progress, save):
            is_folded = restore_writer.is_folded(connection)
            pace = ShardThrottle(connection, stop, has_pauses=is_folded)
            shards = count_shards(connection)
            _Restore(connection, archive, ledger, progress, save, pace, shards).run()
            result = {"events": progress.events, "runs": progress.runs, "rollups": progress.rollups}
            finish_job(connection, job_id, result)
    return progress


def check(connection: psycopg.Connection, archive: Archive) -> None:
    """Raise `RestoreRefused` if the archive does not fit; create shards in an empty database."""
    counts = {file.name.shards for kind in KINDS for file in files_of(archive, kind)}
    if not counts:
        raise RestoreRefused(f"{archive.shown}: there is no archive, or nothing in it")
    if len(counts) > 1:
        raise RestoreRefused(
            f"{archive.shown}: has files of deployments with {_listed(counts)} shards: one"
            " database has one number of shards, so put those of each into a folder of its own"
        )
    shards = count_shards(connection)
    if shards and {shards} != counts:
        raise RestoreRefused(
            f"{archive.shown}: is of a deployment with {_listed(counts)} shards, and this database"
            f" has {shards}: restore into an empty one"
        )
    if restore_writer.has_expired_runs(connection):
        raise RestoreRefused(
            "retention has taken runs away from this database, and their figures still count here:"
            " restored, they would count twice. `runfold show` opens archived runs as they are;"
            " to have all of them, restore into an empty database"
        )
    ensure_shards(connection, *counts)


@dataclass(slots=True)
class _Restore:
    connection: psycopg.Connection
    archive: Archive
    ledger: psycopg.Connection | None
    progress: Progress
    save: Callable[[], None]
    pace: ShardThrottle
    shards: int

    def run(self) -> None:
        progress = self.progress
        works: dict[str, Callable[[], None]] = {
            TOMBSTONES: partial(self._read, TOMBSTONES, self._tombstones),
            LEDGER: self._copy_ledger,
            EVENTS: partial(self._read, EVENTS, self._events),
            FOLD: self._fold,
            RUNS: partial(self._read, RUNS, self._runs),
            NODES: partial(self._read, NODES, self._nodes),
            STATS: partial(self._read, STATS, self._rollups),
        }
        while progress.kinds:
            works[progress.kinds[0]]()
            progress.kinds.pop(0)
            progress.path, progress.group = "", -1
            self.save()

    def _read(self, kind: str, work: Callable[[int, list[Row]], None]) -> None:
        """Restore the files of a kind, from the saved progress on."""
        progress = self.progress
        for file in files_of(self.archive, kind):
            if file.path < progress.path:
                continue
            if file.path > progress.path:
                progress.path, progress.group = file.path, -1
                progress.files += 1
            for number, rows in read_groups(self.archive, kind, file, progress.group + 1):
                work(file.name.shard, rows)
                progress.group = number
                self.save()

    def _tombstones(self, shard: int, rows: list[Row]) -> None:
        tombstones = [(row["key"], row["deleted_at"]) for row in rows]
        restore_writer.restore_tombstones(self.connection, shard, tombstones)

    def _events(self, shard: int, rows: list[Row]) -> None:
        events = (
            LedgerEvent(row["key"], row["id"], row["at"], row["type"], row["body"]) for row in rows
        )
        self._put(shard, list(events))

    def _put(self, shard: int, events: list[LedgerEvent]) -> None:
        deleted = load_deleted(self.connection, [(shard, key) for key in {e.run for e in events}])
        left = [event for event in events if (shard, event.run) not in deleted]
        by_run: dict[bytes, list[LedgerEvent]] = defaultdict(list)
        for event in left:
            by_run[event.run].append(event)
        ensure_weeks(self.connection, {week_of(UUID(bytes=key)) for key in by_run})
        weighed = ((key, len(events)) for key, events in by_run.items())
        for keys in self.pace.steps(weighed):
            events = [event for key in keys for event in by_run[key]]
            # In one transaction: a worker takes the row of a run for what the ledger says of it.
            with self.connection.transaction():
                restored = restore_writer.restore_events(self.connection, shard, events)
                self.progress.events += restored
                self.progress.runs += correct_runs(self.connection, shard, keys).runs

    def _copy_ledger(self) -> None:
        """Copy tombstones and events of another database."""
        if self.ledger is None:
            return
        for shard in range(self.shards):
            deleted = read_deleted(self.ledger, shard)
            restore_writer.restore_tombstones(self.connection, shard, deleted)
            for events in read_pages(self.ledger, shard):
                check_shard(events, shard, self.shards)
                self._put(shard, events)
                self.save()

    def _fold(self) -> None:
        """Fold all runs of the ledger, as a rebuild does."""
        after, everything = self.progress.after, Selection(shards=self.shards)
        for shard in range(self.shards):
            key = after.setdefault(str(shard), BEFORE_ALL.hex())
            begin = None if key is None else bytes.fromhex(key)
            for chunk in verify_shard(self.connection, shard, everything, begin):
                for keys in self.pace.steps(repairable(chunk.wrong)):
                    self.progress.runs += correct_runs(self.connection, shard, keys).runs
                after[str(shard)] = None if chunk.last is None else chunk.last.hex()
                self.save()

    def _runs(self, shard: int, rows: list[Row]) -> None:
        runs = [to_run(row) for row in self._left(shard, rows)]
        self.progress.runs += restore_writer.restore_runs(self.connection, shard, runs)

    def _nodes(self, shard: int, rows: list[Row]) -> None:
        nodes = [to_node(row) for row in self._left(shard, rows)]
        restore_writer.restore_nodes(self.connection, shard, nodes)

    def _rollups(self, shard: int, rows: list[Row]) -> None:
        rollups: dict[RollupKey, RollupValues] = {}
        for row in rows:
            key = RollupKey(*(row[name] for name in ROLLUP_KEY))
            if key not in rollups or rollups[key].n < row["n"]:
                rollups[key] = RollupValues.from_row(row[name] for name in ROLLUP_VALUES)
        self.progress.rollups += restore_writer.restore_rollups(self.connection, shard, rollups)

    def _left(self, shard: int, rows: list[Row]) -> list[Row]:
        """Return the rows of runs that were not deleted."""
        keys = {row["key"] for row in rows}
        deleted = load_deleted(self.connection, [(shard, key) for key in keys])
        return [row for row in rows if (shard, row["key"]) not in deleted]


def _listed(counts: set[int]) -> str:
    return " and ".join(map(str, sorted(counts)))
