"""The job that keeps what is kept for as long as it should be, and no longer.

Weeks of the ledger that are due as a whole are detached and dropped; elsewhere events go run by
run. One walk over all runs, by shard and key, marks those whose events go and takes away those
whose rows go; then statistics. Watchers, workers and readers do not wait for any of it (`aging`).

Dies halfway: its progress says where the walk goes on, and what was begun is found again: marks
that are not settled, weeks that are detached and not dropped.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct

from runfold.crashing import crash_point
from runfold_storage import aging
from runfold_storage.batches import prepare_session
from runfold_storage.deletions import purge, purge_left
from runfold_storage.incidents import raise_incident
from runfold_storage.jobs import (
    Interrupted,
    finish_job,
    hold_job,
    note_progress,
    read_job,
    start_job,
)
from runfold_storage.partitions import partition_name
from runfold_storage.resting import Rests
from runfold_storage.retention import Due, count_due
from runfold_storage.run_keys import BEFORE_ALL

from .correcting import correct_runs
from .verifying import shards_of

KIND: Final = "retention"
PAGE_RUNS: Final = 5000
STEP_RUNS: Final = 500
TRIES: Final = 5
"""How often a week that someone reads is tried before it is left for the next day."""
FORGOTTEN_AFTER: Final = timedelta(days=90)
"""So long a run that has gone keeps out events that come late."""


class Progress(Struct):
    """How far it has come; kept in `jobs`."""

    after: dict[str, str | None] = {}
    """By shard the last key that was looked at, in hexadecimal; null where that was the last."""
    weeks: list[date] | None = None
    """Weeks that go as a whole; null: nobody has looked yet."""
    partitions: list[str] = []
    """Those that have gone."""
    postponed: list[str] = []
    """Those that somebody was reading all the time."""
    payloads: int = 0
    runs: int = 0
    rollups: int = 0


BeforeDrop = Callable[[str], None]
"""Given the name of a detached table before it is dropped: the place for an archive."""


def plan(connection: psycopg.Connection, now: datetime) -> Due:
    """What it would do, changing nothing."""
    weeks = aging.weeks_due(connection, shards_of(connection), now)
    return count_due(connection, now, [partition_name(week) for week in weeks])


def retain(
    connection: psycopg.Connection,
    job_id: UUID,
    stop: threading.Event,
    *,
    before_drop: BeforeDrop = lambda _: None,
) -> Progress:
    """Do a job of this kind, from where it was left; raises `Interrupted` and `JobTaken`.

    The connection is in autocommit mode, and of this job alone.
    """
    prepare_session(connection)
    with hold_job(connection, job_id):
        job = read_job(connection, job_id)
        assert job is not None
        progress = msgspec.convert(job.progress or {}, Progress)
        start_job(connection, job_id)

        def note() -> None:
            note_progress(connection, job_id, msgspec.to_builtins(progress))
            crash_point("after_aging_step")
            if stop.is_set():
                raise Interrupted

        # The age is that at the time of the job, also when it goes on later.
        _Retention(connection, job.created_at.astimezone(UTC), progress, note, stop).run(
            before_drop
        )
        result = msgspec.to_builtins(progress)
        del result["after"], result["weeks"]
        finish_job(connection, job_id, result)
        if progress.postponed:
            raise_incident(connection, "retention_behind", len(progress.postponed))
    return progress


class _Retention:
    def __init__(
        self,
        connection: psycopg.Connection,
        now: datetime,
        progress: Progress,
        note: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._connection = connection
        self._now = now
        self._progress = progress
        self._note = note
        self._stop = stop
        self._rests = Rests(stop)
        self._shards = shards_of(connection)

    def run(self, before_drop: BeforeDrop) -> None:
        progress = self._progress
        for week in aging.detached_weeks(self._connection):
            self._drop(week, before_drop)
        if progress.weeks is None:
            progress.weeks = aging.weeks_due(self._connection, self._shards, self._now)
            for shard in self._shards:
                progress.after[str(shard)] = BEFORE_ALL.hex()
            self._note()
        while pending := [int(shard) for shard, key in progress.after.items() if key is not None]:
            for shard in pending:
                key = progress.after[str(shard)]
                assert key is not None
                last = self._walk(shard, bytes.fromhex(key), progress.weeks)
                progress.after[str(shard)] = None if last is None else last.hex()
                self._note()
        for week in list(progress.weeks):
            self._drop(week, before_drop)
            progress.weeks.remove(week)
            self._note()
        for shard in self._shards:
            while gone := aging.remove_rollups(self._connection, shard, self._now):
                progress.rollups += gone
                self._note()
        purge_left(self._connection)
        aging.forget_old_marks(self._connection, self._now - FORGOTTEN_AFTER)

    def _walk(self, shard: int, after: bytes, weeks: Sequence[date]) -> bytes | None:
        page = aging.read_page(self._connection, shard, after, self._now, PAGE_RUNS)
        wholly, singly = aging.split(page.payloads, weeks)
        for runs, gone in ((wholly, True), (singly, False)):
            for step in _steps(runs):
                marked = aging.mark(self._connection, shard, step, self._now, gone=gone)
                crash_point("after_marking")
                if not gone:
                    purge(self._connection, shard, marked)
                    aging.settle_marks(self._connection, shard, marked)
                self._progress.payloads += len(marked)
        if page.runs:
            self._rests.wait(shard)
            aging.bury_aged(self._connection, shard, page.runs)
            self._rests.begin(shard)
            for step in _steps(page.runs):
                aging.remove_rows(self._connection, shard, step)
                self._progress.runs += len(step)
        return page.last

    def _drop(self, week: date, before_drop: BeforeDrop) -> None:
        tries = 0
        while tries < TRIES or week in aging.detached_weeks(self._connection):
            tries += 1
            dropped = aging.drop_week(self._connection, self._shards, week, before_drop)
            if dropped is not None:
                self._progress.partitions.append(dropped.name)
                for shard, run in dropped.kept:
                    correct_runs(self._connection, shard, [run.bytes])
                return
            self._stop.wait(1)
            if self._stop.is_set():
                raise Interrupted
        self._progress.postponed.append(partition_name(week))


def _steps(runs: Sequence[UUID]) -> list[list[UUID]]:
    return [list(runs[first : first + STEP_RUNS]) for first in range(0, len(runs), STEP_RUNS)]
