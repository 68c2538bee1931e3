"""Writes batches into PostgreSQL, exactly once in effect.

Invariant: a batch and its positions are one transaction. A crash leaves all of it or nothing, and
the positions say which. After every failure the cache drops the runs that the batch touched.

A batch of a shard in which another process has changed runs is refused once. It then locks its
shards, is rebased, and is written; only if its own runs were changed, it is folded again while the
shards are locked. When PostgreSQL refuses the data, the batch is split down to one frame, in which
the event is searched. Every other failure is raised to the caller, which waits and retries.
"""

import logging
import time
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Final

import psycopg

from runfold.crash_points import crash_point
from runfold.serialization.intake import Intake
from runfold_storage.checkpoints.positions import (
    Position,
    count_shards,
    load_external_changes,
    load_positions,
    lock_positions,
    newest_runs,
)
from runfold_storage.checkpoints.streams import order
from runfold_storage.errors import DuplicateInLedger, PositionMoved
from runfold_storage.ledger.events import load_deleted, load_expired, load_for_fold
from runfold_storage.ledger.partitions import ensure_weeks
from runfold_storage.projections.batch_encoding import (
    DEFAULT_LIMITS,
    SingleStatementLimits,
    is_single_statement,
)
from runfold_storage.projections.batch_writer import DATA_ERRORS, prepare_writing, write_batch
from runfold_storage.projections.single_statement import restore_single_statement
from runfold_storage.records.rows import Batch, DeadLetter, PositionUpdate
from runfold_workers.fold.batch_builder import MAX_CACHE_BYTES, BatchBuilder
from runfold_workers.fold.frame_decoder import (
    NOTHING_REFUSED,
    DecodedEvents,
    EventLocation,
    StreamEntry,
    decode_frames,
)
from runfold_workers.fold.run_cache import Loaded, RunRef
from runfold_workers.metrics import Metrics

from .folded_batch import ExternalChanges, FoldedBatch

log = logging.getLogger(__name__)

REFUSED = (PositionMoved, DuplicateInLedger, *DATA_ERRORS)
"""Errors of `write` after which `recommit` of the same frames may succeed."""

Refused = Mapping[EventLocation, str]
"""Events to leave out as dead letters, each with the reason."""

LOAD_RUNS: Final = 500
"""So many runs are read from the ledger by one query."""


class Committer:
    """Folds and writes the frames of its shards; one committer per connection.

    The database must know the deployment's shards (`ensure_shards`). Both connections are in
    autocommit mode, so that only a batch holds a transaction open. One thread folds, reading the
    ledger on `reading`, while another thread writes the batch before on `connection`.

    `positions` are committed; `ahead` are the positions after everything that is folded.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        *,
        reading: psycopg.Connection | None = None,
        max_cache_bytes: int = MAX_CACHE_BYTES,
        metrics: Metrics | None = None,
        intake: Intake | None = None,
        single_statement: SingleStatementLimits = DEFAULT_LIMITS,
    ) -> None:
        self._connection = connection
        self._intake = intake or Intake()
        self._single_statement = single_statement
        self._metrics = metrics or Metrics()
        self._phases = self._metrics.phases
        self._reading = reading or connection
        prepare_writing(connection)
        shards = count_shards(connection)
        self._builder = BatchBuilder(self._load, shards=shards, max_cache_bytes=max_cache_bytes)
        self._cache = self._builder.cache
        self._weeks: set[date | None] = set()
        self.positions: dict[int, Position] = {}
        self.ahead: dict[int, Position] = {}
        self._newest_unread: set[int] = set()
        self._changes: ExternalChanges = {}
        """What the last batch found when it was written; what was folded before is without it."""

    def own(self, shards: Sequence[int]) -> dict[int, Position]:
        """Fold exactly these shards from now on; return the positions of those that are new."""
        for shard in self.positions.keys() - set(shards):
            self.disown(shard)
        gained = [shard for shard in shards if shard not in self.positions]
        positions = load_positions(self._reading, gained) if gained else {}
        self.positions |= positions
        self.ahead |= positions
        self._newest_unread.update(gained)
        return positions

    def disown(self, shard: int) -> None:
        """Drop a shard and its cached runs."""
        self._cache.forget(shard)
        self.positions.pop(shard, None)
        self.ahead.pop(shard, None)
        self._newest_unread.discard(shard)

    def fold(
        self,
        entries: Sequence[StreamEntry],
        refused: Refused = NOTHING_REFUSED,
        latest_us: int | None = None,
    ) -> FoldedBatch:
        """Fold and encode these frames, which follow what was folded before.

        Events later than `latest_us` become dead letters; the default allows for the intake's
        `max_future_s`. Raise `psycopg.DataError` if the batch cannot be stored.
        """
        if self._newest_unread:
            # After the positions were read: later keys than these are new to the tables too.
            for shard, newest in newest_runs(self._reading, self._newest_unread).items():
                self._cache.know(shard, newest)
            self._newest_unread.clear()
        self._changes = {}
        began = time.perf_counter()
        entries = self._unfolded(entries)
        decoded = self._decode(entries, refused, latest_us or self._intake.latest_us())
        decoded_at = time.perf_counter()
        self._phases["decode"].observe(decoded_at - began)
        batch = self._builder.fold(entries, decoded, self.ahead)
        self._phases["fold"].observe(time.perf_counter() - decoded_at)
        self._metrics.recalled(*self._cache.take_recalls())
        for step in batch.advances:
            self.ahead[step.shard] = _after(self.ahead[step.shard], step)
        return FoldedBatch(batch, self._single_statement)

    def write(self, folded: FoldedBatch) -> None:
        """Commit a batch; may be called from another thread than the one that folds."""
        self._ensure_weeks(self._connection, folded.weeks)
        try:
            self._write(folded)
        except PositionMoved:
            self._rebase_and_write(folded)

    def written(self, folded: FoldedBatch) -> None:
        """Record that this batch, and so all batches before it, are committed."""
        batch = folded.batch
        for step in batch.advances:
            old = self.positions.get(step.shard)
            # Otherwise the shard was given up, and perhaps taken again at a later position.
            if old is not None and old.position == step.expected:
                position = self.positions[step.shard] = _after(old, step)
                if self.ahead[step.shard].position == step.position:  # no later batch is folded
                    self.ahead[step.shard] = position
        self._builder.written(batch)
        self._changes = folded.changes
        self._forget(folded.changes)
        if batch.dead_letters:
            letter = batch.dead_letters[0]
            first = {"shard": letter.shard, "frame": letter.frame, "reason": letter.reason[:200]}
            log.warning(
                "stored unreadable events in dead_letters",
                extra={"number": len(batch.dead_letters), **first},
            )

    def catch_up(self, folded: FoldedBatch) -> bool:
        """Rebase a batch that was folded before the last one was written.

        Return False, and rewind, if that one found changes to its runs.
        """
        if not self._changes:
            return True
        if folded.conflicts_with(self._changes):
            self.rewind()
            return False
        folded.rebase(self.positions)
        for step in folded.batch.advances:
            self.ahead[step.shard] = _after(self.positions[step.shard], step)
        return True

    def rewind(self) -> None:
        """Start over from the committed positions; call it only while no batch is being written."""
        self._builder.rewind()
        self.ahead = dict(self.positions)

    def commit(self, entries: Sequence[StreamEntry]) -> list[Batch]:
        """Fold and write these frames, which follow their shards' positions.

        Return what was committed: one batch, or several if PostgreSQL refused the data. Raise
        `PositionMoved` if another worker has moved a shard.
        """
        try:
            return [self._commit(entries)]
        except REFUSED as error:
            is_moved = isinstance(error, PositionMoved)
        return self.recommit(entries, is_moved=is_moved)

    def recommit(self, entries: Sequence[StreamEntry], *, is_moved: bool) -> list[Batch]:
        """Commit frames that were refused before; `is_moved`: with `PositionMoved`."""
        self.rewind()
        if is_moved:
            self._metrics.refolded.inc()
        else:  # the cache may lack events of the ledger, or a partition may be missing
            self._cache.forget()
            self._newest_unread = set(self.positions)
            self._weeks.clear()
        try:
            return [self._commit_locked(entries)]
        except DuplicateInLedger:
            if not is_moved:
                raise
        except DATA_ERRORS as error:
            log.warning("batch refused, searching for the event: %s", error)
            crash_point("after_refusal")
            is_moved = False
            if len(entries) == 1:
                return [self._commit_without_refused(entries)]
            middle = len(entries) // 2
            committed = self.commit(entries[:middle])
            crash_point("between_halves")
            return committed + self.commit(entries[middle:])
        return self.recommit(entries, is_moved=False)

    def _commit(
        self,
        entries: Sequence[StreamEntry],
        refused: Refused = NOTHING_REFUSED,
        latest_us: int | None = None,
    ) -> Batch:
        try:
            folded = self.fold(entries, refused, latest_us)
            self.write(folded)
        except BaseException:
            self.rewind()
            raise
        self.written(folded)
        return folded.batch

    def _commit_locked(self, entries: Sequence[StreamEntry]) -> Batch:
        """Commit these frames while no other process can change their shards."""
        shards = {entry.shard for entry in entries} & self.positions.keys()
        restore_single_statement(self._connection)
        try:
            with self._connection.transaction():
                found = self._lock(shards)
                if found:
                    self._forget(load_external_changes(self._reading, self.positions, found))
                    self.positions |= found
                    self.ahead |= found
                folded = self.fold(entries)
                # On the other connection: here a new partition would stay invisible until COMMIT.
                self._ensure_weeks(self._reading, folded.weeks)
                self._write(folded)
        except BaseException:
            self._weeks.clear()
            self.rewind()
            raise
        self.written(folded)
        return folded.batch

    def _lock(self, shards: Collection[int]) -> dict[int, Position]:
        """Lock these shards; return the checkpoints of those that other processes have changed."""
        found = lock_positions(self._connection, shards)
        for shard, position in found.items():
            if position.position != self.positions[shard].position:
                raise PositionMoved(shard, self.positions[shard].position)
        return {shard: each for shard, each in found.items() if each != self.positions[shard]}

    def _forget(self, changes: ExternalChanges) -> None:
        """Drop runs that other processes have changed."""
        for shard, runs in changes.items():
            if runs is None:
                self._cache.forget(shard)
                self._newest_unread.add(shard)
            else:
                self._cache.forget_runs(shard, runs)

    def _rebase_and_write(self, folded: FoldedBatch) -> None:
        """Write a batch while no other process can change its shards, unless its runs were."""
        restore_single_statement(self._connection)
        with self._connection.transaction():
            found = self._lock(folded.shards)
            changes = load_external_changes(self._connection, self.positions, found)
            if folded.conflicts_with(changes):
                step = folded.batch.advances[0]
                raise PositionMoved(step.shard, step.expected)
            folded.rebase(self.positions | found)
            folded.changes = changes
            self._write(folded)
        self._metrics.rebased.inc()

    def _write(self, folded: FoldedBatch) -> None:
        began = time.perf_counter()
        if is_single_statement(folded.encoded):
            crash_point("before_positions_move")
            write_batch(self._connection, folded.encoded)
            self._phases["write"].observe(time.perf_counter() - began)
        else:
            with self._connection.transaction():
                crash_point("before_positions_move")
                write_batch(self._connection, folded.encoded)
                crash_point("before_commit")
                written = time.perf_counter()
            self._phases["write"].observe(written - began)
            self._phases["commit"].observe(time.perf_counter() - written)
        crash_point("after_commit")

    def _commit_without_refused(self, entries: Sequence[StreamEntry]) -> Batch:
        """Commit one frame without the events that PostgreSQL refuses, as dead letters.

        PostgreSQL refuses a batch as a whole and names no event. Each culprit is found by
        bisection: a trial writes the events up to a point in a transaction that is rolled back.
        """
        latest_us = self._intake.latest_us()
        decoded, _ = self._decode(entries, NOTHING_REFUSED, latest_us)
        left = [location for events in decoded for location in events.locations]
        refused: dict[EventLocation, str] = {}

        def is_refused_up_to(last: int) -> bool:
            without = refused | dict.fromkeys(left[last + 1 :], "not tried yet")
            return self._is_refused(entries, without, latest_us)

        while True:
            try:
                return self._commit(entries, refused, latest_us)
            except DATA_ERRORS as error:
                if not left:
                    raise
                place = bisect_left(range(len(left) - 1), True, key=is_refused_up_to)
                refused[left.pop(place)] = f"refused by PostgreSQL: {error}".strip()

    def _decode(
        self, entries: Sequence[StreamEntry], refused: Refused, latest_us: int
    ) -> tuple[list[DecodedEvents], list[DeadLetter]]:
        redactor = self._intake.redactor
        return decode_frames(entries, refused, redactor=redactor, latest_us=latest_us)

    def _is_refused(self, entries: Sequence[StreamEntry], refused: Refused, latest_us: int) -> bool:
        restore_single_statement(self._connection)
        try:
            with self._connection.transaction(force_rollback=True):
                folded = self.fold(entries, refused, latest_us)
                write_batch(self._connection, folded.encoded)
        except DATA_ERRORS:
            return True
        finally:
            self.rewind()
        return False

    def _ensure_weeks(self, connection: psycopg.Connection, weeks: set[date | None]) -> None:
        missing = weeks - self._weeks
        if missing:
            ensure_weeks(connection, missing)
            self._weeks |= missing
            crash_point("after_weeks_made")

    def _unfolded(self, entries: Sequence[StreamEntry]) -> Sequence[StreamEntry]:
        """Leave out frames that another worker has folded or will fold.

        A shard can be lost, and be taken again at a later position, while its frames are read.
        """
        ahead = {shard: order(step.position) for shard, step in self.ahead.items()}
        return [
            entry
            for entry in entries
            if entry.shard in ahead and order(entry.id) > ahead[entry.shard]
        ]

    def _load(self, refs: Sequence[RunRef]) -> Loaded:
        # In portions, because the driver keeps the whole result of a query in memory.
        portions = (refs[first : first + LOAD_RUNS] for first in range(0, len(refs), LOAD_RUNS))
        return Loaded(
            (event for portion in portions for event in load_for_fold(self._reading, portion)),
            load_deleted(self._reading, refs),
            load_expired(self._reading, refs),
        )


def _after(old: Position, step: PositionUpdate) -> Position:
    return Position(step.position, step.generation, old.consumed + step.consumed, step.change_seq)
