"""The retention job: deletes data that its policy no longer keeps.

Only one retention job runs at a time; workers and readers do not wait for it.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct

from runfold_storage.archive.layout import DEFAULT_LIMITS, FileLimits
from runfold_storage.checkpoints.incidents import raise_incident
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.errors import ArchiveUnusable
from runfold_storage.jobs import JobInterrupted, finish_job, lock_kind, resume_job
from runfold_storage.ledger.partitions import partition_name, week_of
from runfold_storage.postgres.connections import read_clock
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.queries.run.reader import open_archive
from runfold_storage.retention import partition_expiry, run_expiry
from runfold_storage.retention.due_runs import (
    PAYLOADS,
    DueRun,
    PolicyScan,
    RetentionPlan,
    count_due,
    policy_scans,
    read_due,
)
from runfold_storage.retention.policies import Policy, apply_all_now, set_policy
from runfold_storage.retention.run_deletion import purge_left
from runfold_workers.integrity.correct import correct_runs

from .steps import RetentionSteps

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
    place: tuple[datetime, UUID] | None = None
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
        sums = ("payloads", "runs", "rollups", "archived_events", "archived_runs")
        return Progress(
            partitions=self.partitions + later.partitions,
            postponed=later.postponed,
            **{name: getattr(self, name) + getattr(later, name) for name in sums},
        )


def plan(connection: psycopg.Connection, policy: Policy | None = None) -> RetentionPlan:
    """Return what all policies, or this one, would delete if in force; change nothing."""
    with connection.transaction(force_rollback=True):
        if policy is not None:
            set_policy(connection, policy)
        apply_all_now(connection)
        now = read_clock(connection)
        partitions = []
        if policy is None:
            weeks = partition_expiry.weeks_due(connection, list(load_positions(connection)), now)
            partitions = [partition_name(week) for week in weeks]
        return count_due(connection, now, partitions, policy)


def retain(
    connection: psycopg.Connection,
    job_id: UUID,
    stop: threading.Event,
    archive_url: str | None = None,
    *,
    file_limits: FileLimits = DEFAULT_LIMITS,
    tries: int = TRIES,
) -> Progress:
    """Do or resume a job of this kind; raise `JobInterrupted` or `JobLocked`.

    With an `archive_url` nothing is deleted that is not archived. If the archive cannot be written,
    raise an incident and `ArchiveUnusable`. The connection is in autocommit mode, for this job.
    """
    prepare_session(connection)
    with (
        lock_kind(connection, KIND),
        resume_job(connection, job_id, KIND, Progress, stop) as (job, progress, save),
    ):

        def add_archived(events: int, runs: int) -> None:
            progress.archived_events += events
            progress.archived_runs += runs

        # Ages count from the creation of the job, also when it is resumed later.
        now = job.created_at.astimezone(UTC)
        try:
            shards = list(load_positions(connection))
            archive = None if archive_url is None else open_archive(archive_url)
            steps = RetentionSteps(connection, shards, stop, archive, add_archived, file_limits)
            _Retention(connection, now, progress, save, stop, steps, shards, tries).run()
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


@dataclass(slots=True)
class _Retention:
    connection: psycopg.Connection
    now: datetime
    progress: Progress
    save: Callable[[], None]
    stop: threading.Event
    steps: RetentionSteps
    shards: list[int]
    tries: int

    def run(self) -> None:
        progress = self.progress
        self.steps.begin()
        for week in partition_expiry.detached_weeks(self.connection):
            self._drop(week)
        if progress.turns is None:
            progress.weeks = partition_expiry.weeks_due(self.connection, self.shards, self.now)
            progress.turns = policy_scans(self.connection, self.now)
            self.save()
        while progress.turns:
            # A policy that was changed meanwhile is left for the next job.
            is_valid = progress.turns[0] in policy_scans(self.connection, self.now)
            if not is_valid or not self._turn(progress.turns[0]):
                progress.turns.pop(0)
                progress.place = None
            self.save()
        for week in list(progress.weeks):
            self._drop(week)
            progress.weeks.remove(week)
            self.save()
        for shard in self.shards:
            while deleted := self.steps.rollups(shard, self.now):
                progress.rollups += deleted
                self.save()
        purge_left(self.connection)
        self.steps.end()
        run_expiry.delete_old_tombstones(self.connection, self.now - FORGOTTEN_AFTER)

    def _turn(self, turn: PolicyScan) -> bool:
        """Expire one page of a scan; return whether there are more."""
        page = read_due(self.connection, turn, self.now, self.progress.place, PAGE_RUNS)
        by_shard: dict[int, list[DueRun]] = defaultdict(list)
        for due in page:
            by_shard[due.shard].append(due)
        for shard, runs in by_shard.items():
            keys = sorted(due.run for due in runs)
            if turn.what == PAYLOADS:
                self._take_payloads(shard, keys)
            else:
                self.steps.rows(shard, keys)
                self.progress.runs += len(keys)
            if self.stop.is_set():  # the next scan skips what is done
                raise JobInterrupted
        if len(page) < PAGE_RUNS:
            return False
        self.progress.place = (page[-1].created_at, page[-1].run)
        return True

    def _take_payloads(self, shard: int, runs: list[UUID]) -> None:
        weeks = set(self.progress.weeks)
        in_weeks = [run for run in runs if week_of(run) in weeks]
        others = [run for run in runs if week_of(run) not in weeks]
        marked = self.steps.mark(shard, in_weeks, self.now, gone=True)
        self.progress.payloads += len(marked)
        marked = self.steps.mark(shard, others, self.now, gone=False)
        if marked:
            self.steps.payloads(shard, marked)
            self.progress.payloads += len(marked)

    def _drop(self, week: date) -> None:
        tries = 0
        while tries < self.tries or week in partition_expiry.detached_weeks(self.connection):
            tries += 1
            if partition_expiry.detach_week(self.connection, week):
                kept = partition_expiry.reattach_rows(self.connection, self.shards, week)
                self.steps.week(week)
                self.progress.partitions.append(partition_name(week))
                for shard, run in kept:
                    correct_runs(self.connection, shard, [run.bytes])
                return
            self.stop.wait(1)
            if self.stop.is_set():
                raise JobInterrupted
        self.progress.postponed.append(partition_name(week))
