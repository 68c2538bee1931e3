"""The retention job: deletes data that its policy no longer keeps.

Weeks of the ledger that are due as a whole are detached and dropped; other events are deleted run
by run. Policies take turns (`due_runs`): payloads, then rows; then statistics. With an archive each
step writes the data there before deleting it (`archiving_steps`). Subscribers, workers and readers
do not wait for any of it.

After a crash its progress says where to resume. What had begun is found again: marked runs,
detached weeks, steps of the archive journal. Only one retention job runs at a time.
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
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.errors import ArchiveUnusable
from runfold_storage.jobs import JobInterrupted, finish_job, lock_kind, resume_job, save_progress
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
    policy_scans,
    read_due,
)
from runfold_storage.retention.policies import Policy, apply_all_now, set_policy
from runfold_storage.retention.run_deletion import purge_left
from runfold_workers.integrity.correct import correct_runs

from .expiry_steps import ExpirySteps

KIND: Final = "retention"
PAGE_RUNS: Final = 20_000
TRIES: Final = 5
"""How often to try a week that is being read before postponing it to the next day."""
FORGOTTEN_AFTER: Final = timedelta(days=90)
"""How long a deleted run rejects late events."""


class Progress(Struct):
    """The progress of the job, stored in `jobs`."""

    turns: list[PolicyScan] | None = None
    """The scans that are left; null before the first look."""
    place: ListKey | None = None
    """The last run that was scanned in the first of these turns."""
    weeks: list[date] = []
    """Weeks to drop as a whole."""
    partitions: list[str] = []
    """Partitions that were dropped."""
    postponed: list[str] = []
    """Partitions that were being read at every try."""
    payloads: int = 0
    runs: int = 0
    rollups: int = 0
    archived_events: int = 0
    archived_runs: int = 0

    def plus(self, later: "Progress") -> "Progress":
        """Return the sum of two retention jobs, one after the other."""
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
    """Return what the job would delete if all policies were in force, changing nothing.

    With a `policy`: what that one would delete if it were set.
    """
    with connection.transaction(force_rollback=True):
        if policy is not None:
            set_policy(connection, policy)
        apply_all_now(connection)
        now = read_clock(connection)
        weeks = (
            partition_expiry.weeks_due(connection, list(load_positions(connection)), now)
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
    """Do or resume a job of this kind; raise `JobInterrupted` or `JobLocked`.

    With an `archive_url` nothing is deleted that is not archived. If the archive cannot be written,
    raise an incident and `ArchiveUnusable`. The connection is in autocommit mode, for this job.
    """
    prepare_session(connection)
    with (
        lock_kind(connection, KIND),
        resume_job(connection, job_id, KIND, Progress) as (job, progress),
    ):

        def save() -> None:
            save_progress(connection, job_id, progress)
            crash_point("after_aging_step")
            if stop.is_set():
                raise JobInterrupted

        # Ages count from the creation of the job, also when it is resumed later.
        now = job.created_at.astimezone(UTC)
        try:
            steps = _make_steps(connection, stop, archive_url, progress)
            _Retention(connection, now, progress, save, stop, steps).run()
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


def _make_steps(
    connection: psycopg.Connection,
    stop: threading.Event,
    archive_url: str | None,
    progress: Progress,
) -> ExpirySteps:
    shards = list(load_positions(connection))
    if archive_url is None:
        return ExpirySteps(connection, shards, stop)
    try:
        from runfold_storage.archive.store import open_archive

        from .archiving_steps import ArchivingSteps
    except ImportError as error:
        raise ArchiveUnusable(
            f"{archive_url}: an archive needs pyarrow: pip install 'runfold[parquet]'"
        ) from error

    def add_archived(events: int, runs: int) -> None:
        progress.archived_events += events
        progress.archived_runs += runs

    return ArchivingSteps(connection, shards, stop, open_archive(archive_url), add_archived)


class _Retention:
    def __init__(
        self,
        connection: psycopg.Connection,
        now: datetime,
        progress: Progress,
        save: Callable[[], None],
        stop: threading.Event,
        steps: ExpirySteps,
    ) -> None:
        self._connection = connection
        self._now = now
        self._progress = progress
        self._save = save
        self._stop = stop
        self._steps = steps
        self._shards = list(load_positions(connection))

    def run(self) -> None:
        progress = self._progress
        self._steps.begin()
        for week in partition_expiry.detached_weeks(self._connection):
            self._drop(week)
        if progress.turns is None:
            progress.weeks = partition_expiry.weeks_due(self._connection, self._shards, self._now)
            progress.turns = policy_scans(self._connection, self._now)
            self._save()
        while progress.turns:
            # A policy that was changed meanwhile is left for the next job.
            is_valid = progress.turns[0] in policy_scans(self._connection, self._now)
            if not is_valid or not self._turn(progress.turns[0]):
                progress.turns.pop(0)
                progress.place = None
            self._save()
        for week in list(progress.weeks):
            self._drop(week)
            progress.weeks.remove(week)
            self._save()
        for shard in self._shards:
            while deleted := self._steps.rollups(shard, self._now):
                progress.rollups += deleted
                self._save()
        purge_left(self._connection)
        self._steps.end()
        run_expiry.delete_old_tombstones(self._connection, self._now - FORGOTTEN_AFTER)

    def _turn(self, turn: PolicyScan) -> bool:
        """Expire one page of a scan; return whether there are more."""
        page = read_due(self._connection, turn, self._now, self._progress.place, PAGE_RUNS)
        by_shard: dict[int, list[DueRun]] = defaultdict(list)
        for due in page:
            by_shard[due.shard].append(due)
        for shard, runs in by_shard.items():
            keys = sorted(due.run for due in runs)
            if turn.what == PAYLOADS:
                self._take_payloads(shard, keys)
            else:
                self._steps.rows(shard, keys)
                self._progress.runs += len(keys)
            if self._stop.is_set():  # the next scan skips what is done
                raise JobInterrupted
        if len(page) < PAGE_RUNS:
            return False
        self._progress.place = page[-1].place
        return True

    def _take_payloads(self, shard: int, runs: list[UUID]) -> None:
        in_weeks, others = partition_expiry.split_by_week(runs, self._progress.weeks)
        marked = self._steps.mark(shard, in_weeks, self._now, gone=True)
        self._progress.payloads += len(marked)
        marked = self._steps.mark(shard, others, self._now, gone=False)
        if marked:
            self._steps.payloads(shard, marked)
            self._progress.payloads += len(marked)

    def _drop(self, week: date) -> None:
        tries = 0
        while tries < TRIES or week in partition_expiry.detached_weeks(self._connection):
            tries += 1
            if partition_expiry.detach_week(self._connection, week):
                kept = partition_expiry.reattach_rows(self._connection, self._shards, week)
                self._steps.week(week)
                self._progress.partitions.append(partition_name(week))
                for shard, run in kept:
                    correct_runs(self._connection, shard, [run.bytes])
                return
            self._stop.wait(1)
            if self._stop.is_set():
                raise JobInterrupted
        self._progress.postponed.append(partition_name(week))
