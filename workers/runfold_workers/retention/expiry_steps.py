"""The steps of retention: delete expired data in short transactions that each lock one shard."""

import threading
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg

from runfold.crash_points import crash_point
from runfold_storage.archive import journal
from runfold_storage.archive.journal import Step, mark_archived
from runfold_storage.checkpoints.throttle import ShardThrottle
from runfold_storage.retention import partition_expiry, run_expiry
from runfold_storage.retention.rollup_expiry import read_old_rollups, remove_rollups
from runfold_storage.retention.run_deletion import purge

STEP_ROLLUPS: Final = 2000
WEIGHT: Final = 5
"""Rows of a run with its attempts, or of a rollup with its day, for the throttle."""

Item = TypeVar("Item")


class ExpirySteps:
    """The steps of one retention job; no other one runs at the same time."""

    def __init__(
        self, connection: psycopg.Connection, shards: Sequence[int], stop: threading.Event
    ) -> None:
        self._connection = connection
        self._shards = shards
        self._pace = ShardThrottle(connection, stop)

    def begin(self) -> None:
        """Finish the steps of a dead process: delete what is archived, undo the rest."""
        for step in journal.read_steps(self._connection):
            if step.is_written:
                self._delete(step)
            else:
                self._undo(step)

    def mark(self, shard: int, runs: Sequence[UUID], now: datetime, *, gone: bool) -> list[UUID]:
        """Mark those runs that are still due, so that they take no more events; return them."""
        marked: list[UUID] = []
        for portion in self._portions(runs):
            marked += run_expiry.mark_expired(self._connection, shard, portion, now, gone=gone)
            crash_point("after_marking")
        return marked

    def payloads(self, shard: int, runs: Sequence[UUID]) -> None:
        """Delete the events of marked runs."""
        for portion in self._portions(runs):
            purge(self._connection, shard, portion)
            run_expiry.complete_expiry(self._connection, shard, portion)

    def rows(self, shard: int, runs: Sequence[UUID]) -> None:
        """Delete the rows of due runs, leaving tombstones."""
        self._add_tombstones(shard, runs)
        self._remove_rows(shard, runs)

    def week(self, week: date) -> None:
        """Drop a detached week of the ledger."""
        partition_expiry.drop_week(self._connection, week)

    def rollups(self, shard: int, now: datetime) -> int:
        """Delete some of the due statistics; return how many, 0 if there are no more."""
        old = read_old_rollups(self._connection, shard, now, STEP_ROLLUPS)
        return self._remove_rollups(shard, [each.identity for each in old])

    def end(self) -> None:
        """Do what remains at the end of the job."""

    def _undo(self, step: Step) -> None:
        journal.end(self._connection, step)

    def _delete(self, step: Step) -> None:
        """Delete what a step has archived, or the rest of it."""
        if step.week is not None:
            with self._connection.transaction():
                partition_expiry.drop_week(self._connection, step.week)
                journal.end(self._connection, step)
            return
        assert step.shard is not None
        if step.kind == journal.PAYLOADS:
            ExpirySteps.payloads(self, step.shard, step.runs)
        elif step.kind == journal.ROWS:
            self._remove_rows(step.shard, step.runs)
        elif step.kind == journal.ROLLUPS:
            self._remove_rollups(step.shard, step.rollups)
        elif step.kind == journal.TOMBSTONES:
            mark_archived(self._connection, step.shard, step.runs)
        crash_point("before_step_end")
        journal.end(self._connection, step)

    def _add_tombstones(self, shard: int, runs: Sequence[UUID]) -> None:
        for portion in self._portions(runs):
            run_expiry.add_expiry_tombstones(self._connection, shard, portion)

    def _remove_rows(self, shard: int, runs: Sequence[UUID]) -> None:
        for portion in self._portions(runs):
            run_expiry.delete_expired_rows(self._connection, shard, portion)

    def _remove_rollups(self, shard: int, identities: Sequence[Sequence[Any]]) -> int:
        return sum(
            remove_rollups(self._connection, shard, portion)
            for portion in self._portions(identities)
        )

    def _portions(self, items: Sequence[Item]) -> Iterator[list[Item]]:
        """Yield the items of one transaction each."""
        return self._pace.steps((item, WEIGHT) for item in items)
