"""Batches into PostgreSQL, exactly once in effect.

A batch and its positions are one transaction, so a crash anywhere leaves all of it or none, and
the positions tell which; what is remembered of runs is dropped after every failure. When the
database refuses a batch for its data, the batch is cut in halves down to the event that is to
blame, which becomes a dead letter in the same transaction as its neighbours. Every other failure
goes up to the caller, who waits and tries again.
"""

import logging
from collections.abc import Sequence
from datetime import date

import psycopg

from runfold_storage.batches import DATA_ERRORS, write_batch
from runfold_storage.errors import LedgerKnowsMore
from runfold_storage.ledger import load_for_fold, load_tombstones
from runfold_storage.partitions import ensure_weeks, week_of
from runfold_storage.positions import Position, count_shards, load_positions
from runfold_storage.rows import Batch

from .arrivals import Place, StreamEntry, take_apart
from .folding import MAX_MEMORY_WEIGHT, Folder
from .memory import Loaded, RunRef

log = logging.getLogger(__name__)


class Committer:
    """Folds and writes the frames of the shards it was given; one to a connection.

    The deployment's shards must be known to the database by then (`ensure_shards`).
    The connection is in autocommit mode, so that nothing but a batch holds a transaction open.
    """

    def __init__(
        self, connection: psycopg.Connection, *, max_memory_weight: int = MAX_MEMORY_WEIGHT
    ) -> None:
        self._connection = connection
        shards = count_shards(connection)
        self._folder = Folder(self._load, shards=shards, max_weight=max_memory_weight)
        self._weeks: set[date | None] = set()
        self.positions: dict[int, Position] = {}

    def own(self, shards: Sequence[int]) -> None:
        """Fold these shards from now on, each from its committed position."""
        for shard in self.positions.keys() - set(shards):
            self._folder.forget(shard)
            del self.positions[shard]
        gained = [shard for shard in shards if shard not in self.positions]
        if gained:
            self.positions.update(load_positions(self._connection, gained))

    def disown(self, shard: int) -> None:
        """Drop what is remembered of a shard that someone else has moved."""
        self._folder.forget(shard)
        self.positions.pop(shard, None)

    def commit(self, entries: Sequence[StreamEntry]) -> list[Batch]:
        """Fold and write these frames, in order after their shards' positions.

        Returns what was committed: one batch, or more where the data had to be cut up.
        """
        try:
            return [self._commit(entries)]
        except (LedgerKnowsMore, *DATA_ERRORS):
            # Memory may be behind the ledger, or a partition be gone: look at both again.
            self._weeks.clear()
        try:
            return [self._commit(entries)]
        except DATA_ERRORS as error:
            log.warning("batch refused, looking for the event to blame: %s", error)
        if len(entries) > 1:
            middle = len(entries) // 2
            return [*self.commit(entries[:middle]), *self.commit(entries[middle:])]
        return [self._commit_without_culprits(entries)]

    def _commit(
        self, entries: Sequence[StreamEntry], refused: dict[Place, str] | None = None
    ) -> Batch:
        try:
            batch = self._folder.fold(entries, self.positions, refused)
            self._ensure_partitions(batch)
            with self._connection.transaction():
                write_batch(self._connection, batch)
        except BaseException:
            self._folder.forget()
            raise
        for step in batch.advances:
            old = self.positions[step.shard]
            self.positions[step.shard] = Position(
                step.position, step.generation, old.consumed + step.consumed, step.feed_seq
            )
        return batch

    def _commit_without_culprits(self, entries: Sequence[StreamEntry]) -> Batch:
        """One frame that was refused: find each event to blame by halving, and leave it out."""
        places = [
            Place(shard, frame, ordinal)
            for shard, frame, events in take_apart(entries)[0]
            for ordinal, _, _ in events
        ]
        refused: dict[Place, str] = {}
        while len(refused) <= len(places):
            try:
                return self._commit(entries, refused)
            except DATA_ERRORS as error:
                left = [place for place in places if place not in refused]
                if not left:
                    raise
                culprit = self._first_refused(entries, left, refused)
                refused[culprit] = f"refused by PostgreSQL: {error}".strip()
        raise AssertionError("every event was left out, and still the frame was refused")

    def _first_refused(
        self, entries: Sequence[StreamEntry], places: list[Place], refused: dict[Place, str]
    ) -> Place:
        """The first event with which those before it are refused."""
        fine, bad = 0, len(places)
        while bad - fine > 1:
            middle = (fine + bad) // 2
            later = dict.fromkeys(places[middle:], "not tried yet")
            if self._is_refused(entries, refused | later):
                bad = middle
            else:
                fine = middle
        return places[bad - 1]

    def _is_refused(self, entries: Sequence[StreamEntry], refused: dict[Place, str]) -> bool:
        try:
            with self._connection.transaction(force_rollback=True):
                write_batch(self._connection, self._folder.fold(entries, self.positions, refused))
        except DATA_ERRORS:
            return True
        finally:
            self._folder.forget()
        return False

    def _ensure_partitions(self, batch: Batch) -> None:
        weeks = {week_of(run) for run in {row.run for row in batch.events}} - self._weeks
        if weeks:
            ensure_weeks(self._connection, weeks)
            self._weeks |= weeks

    def _load(self, refs: Sequence[RunRef]) -> Loaded:
        return Loaded(
            load_for_fold(self._connection, refs), load_tombstones(self._connection, refs)
        )
