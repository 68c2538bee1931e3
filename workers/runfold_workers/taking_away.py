"""What retention takes away, in short steps that each hold one shard, and nobody waits for.

`archiving` is the same behind files of an archive.
"""

import threading
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

import psycopg

from runfold.crashing import crash_point
from runfold_storage import aging, dropping
from runfold_storage.archive import steps
from runfold_storage.archive.steps import Step
from runfold_storage.archive.tombstones import note_archived
from runfold_storage.deletions import purge
from runfold_storage.old_rollups import read_old_rollups, remove_rollups
from runfold_storage.resting import Rests

STEP_RUNS: Final = 500
STEP_ROLLUPS: Final = 2000


class TakingAway:
    """For one run of retention, which is alone at work."""

    def __init__(
        self, connection: psycopg.Connection, shards: Sequence[int], stop: threading.Event
    ) -> None:
        self._connection = connection
        self._shards = shards
        self._rests = Rests(stop)

    def begin(self) -> None:
        """End what someone did not live to end: what is archived goes, the rest is forgotten."""
        for step in steps.read_steps(self._connection):
            if step.written:
                self._take(step)
            else:
                self._undo(step)

    def mark(self, shard: int, runs: Sequence[UUID], now: datetime, *, gone: bool) -> list[UUID]:
        """Those of these runs that (still) are due take no more events from now on."""
        marked: list[UUID] = []
        for portion in portions(runs):
            self._rests.wait(shard)
            marked += aging.mark(self._connection, shard, portion, now, gone=gone)
            self._rests.begin(shard)
            crash_point("after_marking")
        return marked

    def payloads(self, shard: int, runs: Sequence[UUID]) -> None:
        """Events of runs that are marked."""
        for portion in portions(runs):
            purge(self._connection, shard, portion)
            aging.settle_marks(self._connection, shard, portion)

    def rows(self, shard: int, runs: Sequence[UUID]) -> None:
        """Rows of runs that are due, of which tombstones are left."""
        self._rests.wait(shard)
        aging.bury_aged(self._connection, shard, runs)
        self._rests.begin(shard)
        self._remove_rows(shard, runs)

    def week(self, week: date) -> None:
        """A week of the ledger that is detached."""
        dropping.drop_week(self._connection, week)

    def rollups(self, shard: int, now: datetime) -> int:
        """Some statistics that are due; returns how many, 0: there are no more."""
        old = read_old_rollups(self._connection, shard, now, STEP_ROLLUPS)
        return remove_rollups(self._connection, shard, [each.identity for each in old])

    def end(self) -> None:
        """What is left to do when all else is done."""

    def _undo(self, step: Step) -> None:
        steps.end(self._connection, step)

    def _take(self, step: Step) -> None:
        """Take away what a step has written, or the rest of it."""
        if step.week is not None:
            with self._connection.transaction():
                dropping.drop_week(self._connection, step.week)
                steps.end(self._connection, step)
            return
        assert step.shard is not None
        if step.kind == steps.PAYLOADS:
            TakingAway.payloads(self, step.shard, step.runs)
        elif step.kind == steps.ROWS:
            self._remove_rows(step.shard, step.runs)
        elif step.kind == steps.ROLLUPS:
            remove_rollups(self._connection, step.shard, step.rollups)
        elif step.kind == steps.TOMBSTONES:
            note_archived(self._connection, step.shard, step.runs)
        crash_point("before_step_end")
        steps.end(self._connection, step)

    def _remove_rows(self, shard: int, runs: Sequence[UUID]) -> None:
        for portion in portions(runs):
            aging.remove_rows(self._connection, shard, portion)


def portions(runs: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    """What one transaction takes away at most."""
    for first in range(0, len(runs), STEP_RUNS):
        yield runs[first : first + STEP_RUNS]
