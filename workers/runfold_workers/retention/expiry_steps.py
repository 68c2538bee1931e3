"""What retention takes away, in short steps that each hold one shard, and nobody waits for.

`archiving` is the same behind files of an archive.
"""

import threading
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg

from runfold.crash_points import crash_point
from runfold_storage.archive import journal
from runfold_storage.archive.journal import Step, note_archived
from runfold_storage.checkpoints.throttle import ShardThrottle
from runfold_storage.retention import partition_expiry, run_expiry
from runfold_storage.retention.rollup_expiry import read_old_rollups, remove_rollups
from runfold_storage.retention.run_deletion import purge

STEP_ROLLUPS: Final = 2000
WEIGHT: Final = 5
"""In rows: a run with the attempts at its nodes, or a rollup with what counts in its day."""

Item = TypeVar("Item")


class ExpirySteps:
    """For one run of retention, which is alone at work."""

    def __init__(
        self, connection: psycopg.Connection, shards: Sequence[int], stop: threading.Event
    ) -> None:
        self._connection = connection
        self._shards = shards
        self._pace = ShardThrottle(connection, stop)

    def begin(self) -> None:
        """End what someone did not live to end: what is archived goes, the rest is forgotten."""
        for step in journal.read_steps(self._connection):
            if step.written:
                self._take(step)
            else:
                self._undo(step)

    def mark(self, shard: int, runs: Sequence[UUID], now: datetime, *, gone: bool) -> list[UUID]:
        """Those of these runs that (still) are due take no more events from now on."""
        marked: list[UUID] = []
        for portion in self._portions(runs):
            marked += run_expiry.mark(self._connection, shard, portion, now, gone=gone)
            crash_point("after_marking")
        return marked

    def payloads(self, shard: int, runs: Sequence[UUID]) -> None:
        """Events of runs that are marked."""
        for portion in self._portions(runs):
            purge(self._connection, shard, portion)
            run_expiry.settle_marks(self._connection, shard, portion)

    def rows(self, shard: int, runs: Sequence[UUID]) -> None:
        """Rows of runs that are due, of which tombstones are left."""
        self._bury(shard, runs)
        self._remove_rows(shard, runs)

    def week(self, week: date) -> None:
        """A week of the ledger that is detached."""
        partition_expiry.drop_week(self._connection, week)

    def rollups(self, shard: int, now: datetime) -> int:
        """Some statistics that are due; returns how many, 0: there are no more."""
        old = read_old_rollups(self._connection, shard, now, STEP_ROLLUPS)
        return self._remove_rollups(shard, [each.identity for each in old])

    def end(self) -> None:
        """What is left to do when all else is done."""

    def _undo(self, step: Step) -> None:
        journal.end(self._connection, step)

    def _take(self, step: Step) -> None:
        """Take away what a step has written, or the rest of it."""
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
            note_archived(self._connection, step.shard, step.runs)
        crash_point("before_step_end")
        journal.end(self._connection, step)

    def _bury(self, shard: int, runs: Sequence[UUID]) -> None:
        for portion in self._portions(runs):
            run_expiry.add_expiry_tombstones(self._connection, shard, portion)

    def _remove_rows(self, shard: int, runs: Sequence[UUID]) -> None:
        for portion in self._portions(runs):
            run_expiry.remove_rows(self._connection, shard, portion)

    def _remove_rollups(self, shard: int, identities: Sequence[Sequence[Any]]) -> int:
        return sum(
            remove_rollups(self._connection, shard, portion)
            for portion in self._portions(identities)
        )

    def _portions(self, items: Sequence[Item]) -> Iterator[list[Item]]:
        """What one transaction takes away: the loop's body is a step that holds the shard."""
        for portion in self._pace.portions((item, WEIGHT) for item in items):
            with self._pace.holding():
                yield portion
            self._pace.rest()
