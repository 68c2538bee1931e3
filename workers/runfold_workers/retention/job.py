"""The job that keeps what is kept for as long as it should be, and no longer.

Weeks of the ledger that are due as a whole are detached and dropped; elsewhere events go run by
run. What is due is looked up policy by policy (`due_runs`): payloads, then rows; then statistics.
With an archive each step puts there first what it takes away (`archiving`); without one it is gone.
Watchers, workers and readers do not wait for any of it.

Dies halfway: its progress says where to go on, and what was begun is found again: marks that are
not settled, weeks that are detached and not dropped, steps into the archive. One at a time is at
work, whoever began it.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct

from runfold.crash_points import crash_point
from runfold_storage.checkpoints.incidents import raise_incident
from runfold_storage.errors import ArchiveUnusable
from runfold_storage.jobs import JobInterrupted, finish_job, hold_kind, resume_job, save_progress
from runfold_storage.ledger.partitions import partition_name
from runfold_storage.postgres.connections import read_clock
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.retention import partition_expiry, run_expiry
from runfold_storage.retention.due_runs import (
    PAYLOADS,
    DueRun,
    ListKey,
    PolicyScan,
    RetentionPlan,
    count_due,
    read_due,
    turns,
)
from runfold_storage.retention.policies import Policy, hold_now, set_policy
from runfold_storage.retention.run_deletion import purge_left
from runfold_workers.integrity.correct import correct_runs
from runfold_workers.integrity.verify import shards_of

from .expiry_steps import ExpirySteps

KIND: Final = "retention"
PAGE_RUNS: Final = 20_000
TRIES: Final = 5
"""How often a week that someone reads is tried before it is left for the next day."""
FORGOTTEN_AFTER: Final = timedelta(days=90)
"""So long a run that has gone keeps out events that come late."""


class Progress(Struct):
    """How far it has come; kept in `jobs`."""

    turns: list[PolicyScan] | None = None
    """What is still to be looked at; null: nobody has looked yet."""
    place: ListKey | None = None
    """The last run that was looked at in the first of these turns."""
    weeks: list[date] = []
    """Weeks that go as a whole."""
    partitions: list[str] = []
    """Those that have gone."""
    postponed: list[str] = []
    """Those that somebody was reading all the time."""
    payloads: int = 0
    runs: int = 0
    rollups: int = 0
    archived_events: int = 0
    archived_runs: int = 0

    def plus(self, later: "Progress") -> "Progress":
        """What two runs of retention have taken, one after the other."""
        return Progress(
            partitions=self.partitions + later.partitions,
            postponed=later.postponed,
            payloads=self.payloads + later.payloads,
            runs=self.runs + later.runs,
            rollups=self.rollups + later.rollups,
            archived_events=self.archived_events + later.archived_events,
            archived_runs=self.archived_runs + later.archived_runs,
        )


def plan(connection: psycopg.Connection, policy: Policy | None = None) -> RetentionPlan:
    """What it would do if all policies held by now, changing nothing.

    With a `policy`, what this one would take if it was set.
    """
    with connection.transaction(force_rollback=True):
        if policy is not None:
            set_policy(connection, policy)
        hold_now(connection)
        now = read_clock(connection)
        weeks = (
            partition_expiry.weeks_due(connection, shards_of(connection), now)
            if policy is None
            else []
        )
        return count_due(connection, now, [partition_name(week) for week in weeks], policy)


def retain(
    connection: psycopg.Connection,
    job_id: UUID,
    stop: threading.Event,
    *,
    archive_url: str | None = None,
) -> Progress:
    """Do a job of this kind, from where it was left; raises `JobInterrupted` and `JobLocked`.

    With an `archive_url` nothing is taken away that is not there; `ArchiveUnusable`, and an
    incident, where it cannot be written. The connection is in autocommit mode, of this job alone.
    """
    prepare_session(connection)
    with (
        hold_kind(connection, KIND),
        resume_job(connection, job_id, KIND, Progress) as (job, progress),
    ):

        def note() -> None:
            save_progress(connection, job_id, progress)
            crash_point("after_aging_step")
            if stop.is_set():
                raise JobInterrupted

        # The age is that at the time of the job, also when it goes on later.
        now = job.created_at.astimezone(UTC)
        try:
            away = _make(connection, stop, archive_url, progress)
            _Retention(connection, now, progress, note, stop, away).run()
        except ArchiveUnusable:
            raise_incident(connection, "archive_failed")
            raise
        result = msgspec.to_builtins(progress)
        for field in ("turns", "place", "weeks"):
            del result[field]
        finish_job(connection, job_id, result)
        if progress.postponed:
            raise_incident(connection, "retention_behind", len(progress.postponed))
    return progress


def _make(
    connection: psycopg.Connection,
    stop: threading.Event,
    archive_url: str | None,
    progress: Progress,
) -> ExpirySteps:
    shards = shards_of(connection)
    if archive_url is None:
        return ExpirySteps(connection, shards, stop)
    try:
        from runfold_storage.archive.store import open_archive

        from .archiving_steps import ArchivingSteps
    except ImportError as error:
        raise ArchiveUnusable(
            f"{archive_url}: an archive needs pyarrow: pip install 'runfold[parquet]'"
        ) from error

    def archived(events: int, runs: int) -> None:
        progress.archived_events += events
        progress.archived_runs += runs

    return ArchivingSteps(connection, shards, stop, open_archive(archive_url), archived)


class _Retention:
    def __init__(
        self,
        connection: psycopg.Connection,
        now: datetime,
        progress: Progress,
        note: Callable[[], None],
        stop: threading.Event,
        away: ExpirySteps,
    ) -> None:
        self._connection = connection
        self._now = now
        self._progress = progress
        self._note = note
        self._stop = stop
        self._away = away
        self._shards = shards_of(connection)

    def run(self) -> None:
        progress = self._progress
        self._away.begin()
        for week in partition_expiry.detached_weeks(self._connection):
            self._drop(week)
        if progress.turns is None:
            progress.weeks = partition_expiry.weeks_due(self._connection, self._shards, self._now)
            progress.turns = turns(self._connection, self._now)
            self._note()
        while progress.turns:
            # A policy that was changed meanwhile is left for the next run.
            holds = progress.turns[0] in turns(self._connection, self._now)
            if not holds or not self._turn(progress.turns[0]):
                progress.turns.pop(0)
                progress.place = None
            self._note()
        for week in list(progress.weeks):
            self._drop(week)
            progress.weeks.remove(week)
            self._note()
        for shard in self._shards:
            while gone := self._away.rollups(shard, self._now):
                progress.rollups += gone
                self._note()
        purge_left(self._connection)
        self._away.end()
        run_expiry.forget_old_marks(self._connection, self._now - FORGOTTEN_AFTER)

    def _turn(self, turn: PolicyScan) -> bool:
        """A page of it; False: there are no more."""
        page = read_due(self._connection, turn, self._now, self._progress.place, PAGE_RUNS)
        by_shard: dict[int, list[DueRun]] = defaultdict(list)
        for due in page:
            by_shard[due.shard].append(due)
        for shard, runs in by_shard.items():
            keys = sorted(due.run for due in runs)
            if turn.what == PAYLOADS:
                self._take_payloads(shard, keys)
            else:
                self._away.rows(shard, keys)
                self._progress.runs += len(keys)
            if self._stop.is_set():  # what was done is found done
                raise JobInterrupted
        if len(page) < PAGE_RUNS:
            return False
        self._progress.place = page[-1].place
        return True

    def _take_payloads(self, shard: int, runs: list[UUID]) -> None:
        wholly, singly = partition_expiry.split(runs, self._progress.weeks)
        marked = self._away.mark(shard, wholly, self._now, gone=True)
        self._progress.payloads += len(marked)
        marked = self._away.mark(shard, singly, self._now, gone=False)
        if marked:
            self._away.payloads(shard, marked)
            self._progress.payloads += len(marked)

    def _drop(self, week: date) -> None:
        tries = 0
        while tries < TRIES or week in partition_expiry.detached_weeks(self._connection):
            tries += 1
            if partition_expiry.detach_week(self._connection, week):
                kept = partition_expiry.reattach_rows(self._connection, self._shards, week)
                self._away.week(week)
                self._progress.partitions.append(partition_name(week))
                for shard, run in kept:
                    correct_runs(self._connection, shard, [run.bytes])
                return
            self._stop.wait(1)
            if self._stop.is_set():
                raise JobInterrupted
        self._progress.postponed.append(partition_name(week))
