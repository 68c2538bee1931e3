"""Batches into PostgreSQL, exactly once in effect.

A batch and its positions are one transaction, so a crash anywhere leaves all of it or none, and
the positions tell which; what is remembered of the runs that it touched is dropped after every
failure. A batch that was refused is folded once more with its shards held, so that nothing can come
in between again; by then memory has forgotten the runs that were changed behind the fold. So are
the batches that follow, for whoever changes many runs goes on, and would have each refused. When
the database refuses a batch for its data, the batch is cut in halves down to the event that is to
blame, which becomes a dead letter in the same transaction as its neighbours. Every other failure
goes up to the caller, who waits and tries again.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import date
from operator import itemgetter
from typing import Final
from uuid import UUID

import psycopg

from runfold.crash_points import crash_point
from runfold.serialization.intake import Intake
from runfold_storage.checkpoints.positions import (
    Position,
    count_shards,
    hold_positions,
    load_changed_behind,
    load_positions,
    newest_runs,
)
from runfold_storage.checkpoints.streams import order
from runfold_storage.errors import DuplicateInLedger, PositionMoved
from runfold_storage.ledger.events import load_aged, load_deleted, load_for_fold
from runfold_storage.ledger.partitions import ensure_weeks, week_of
from runfold_storage.projections.batch_encoding import Prepared, is_at_once, prepare
from runfold_storage.projections.batch_writer import DATA_ERRORS, prepare_writing, write_batch
from runfold_storage.records.rows import Batch, PositionUpdate
from runfold_workers.fold.batch_builder import MAX_MEMORY_WEIGHT, BatchBuilder
from runfold_workers.fold.frame_decoder import (
    NOTHING_REFUSED,
    EventLocation,
    StreamEntry,
    decode_frames,
)
from runfold_workers.fold.run_cache import Loaded, RunRef
from runfold_workers.metrics import Metrics

log = logging.getLogger(__name__)

REFUSED = (PositionMoved, DuplicateInLedger, *DATA_ERRORS)
"""What `write` raises when `recommit` of the same frames may have a way out."""

HELD_BATCHES: Final = 50
"""So many are folded with their shards held, after runs were changed behind the fold."""


class Committer:
    """Folds and writes the frames of the shards it was given; one to a connection.

    The deployment's shards must be known to the database by then (`ensure_shards`).
    Connections are in autocommit mode, so that nothing but a batch holds a transaction open;
    `reading` lets one thread fold while another one writes what was folded before.

    `positions` are committed; `ahead` lies behind what was folded.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        *,
        reading: psycopg.Connection | None = None,
        max_memory_weight: int = MAX_MEMORY_WEIGHT,
        metrics: Metrics | None = None,
        intake: Intake | None = None,
    ) -> None:
        self._connection = connection
        self._intake = intake or Intake()
        self._metrics = metrics or Metrics()
        self._phases = self._metrics.phases
        self._reading = reading or connection
        prepare_writing(connection)
        shards = count_shards(connection)
        self._folder = BatchBuilder(
            self._load,
            shards=shards,
            max_weight=max_memory_weight,
            redactor=self._intake.redactor,
        )
        self._weeks: set[date | None] = set()
        self.positions: dict[int, Position] = {}
        self.ahead: dict[int, Position] = {}
        self._unknown: set[int] = set()
        self._to_be_held = 0

    @property
    def is_contended(self) -> bool:
        """Whether runs were changed behind the fold of late, and so may be again."""
        return self._to_be_held > 0

    def own(self, shards: Sequence[int]) -> dict[int, Position]:
        """Fold these shards from now on, each from its committed position; returns the new ones."""
        for shard in self.positions.keys() - set(shards):
            self.disown(shard)
        gained = [shard for shard in shards if shard not in self.positions]
        positions = load_positions(self._reading, gained) if gained else {}
        self.positions |= positions
        self.ahead |= positions
        self._unknown.update(gained)
        return positions

    def disown(self, shard: int) -> None:
        """Drop what is remembered of a shard that someone else has moved."""
        self._folder.forget(shard)
        self.positions.pop(shard, None)
        self.ahead.pop(shard, None)
        self._unknown.discard(shard)

    def fold(
        self,
        entries: Sequence[StreamEntry],
        refused: Mapping[EventLocation, str] = NOTHING_REFUSED,
        latest_us: int | None = None,
    ) -> Batch:
        """The batch that these frames make, in order after what was folded before.

        Events later than `latest_us`, by default as of now, are dead letters.
        """
        if self._unknown:
            # After the positions were read: what lies behind those is new to the tables as well.
            for shard, newest in newest_runs(self._reading, self._unknown).items():
                self._folder.know(shard, newest)
            self._unknown.clear()
        began = time.perf_counter()
        if latest_us is None:
            latest_us = self._intake.latest_us()
        batch = self._folder.fold(self._unfolded(entries), self.ahead, refused, latest_us=latest_us)
        decoding_s = self._folder.decoding_s
        self._phases["decode"].observe(decoding_s)
        self._phases["fold"].observe(time.perf_counter() - began - decoding_s)
        self._metrics.recalled(*self._folder.take_recalls())
        for step in batch.advances:
            self.ahead[step.shard] = _after(self.ahead[step.shard], step)
        return batch

    def write(self, batch: Prepared, weeks: set[date | None]) -> None:
        """Commit a batch, and nothing else: this may happen in a thread of its own."""
        self._ensure_weeks(self._connection, weeks)
        began = time.perf_counter()
        if is_at_once(batch):
            crash_point("before_positions_move")
            write_batch(self._connection, batch)
            self._phases["write"].observe(time.perf_counter() - began)
        else:
            with self._connection.transaction():
                crash_point("before_positions_move")
                write_batch(self._connection, batch)
                crash_point("before_commit")
                written = time.perf_counter()
            self._phases["write"].observe(written - began)
            self._phases["commit"].observe(time.perf_counter() - written)
        crash_point("after_commit")

    def written(self, batch: Batch) -> None:
        """A batch is committed, and so is everything that was folded before it."""
        for step in batch.advances:
            old = self.positions.get(step.shard)
            # Else it was given up in the meantime, and may be back from where others have led it.
            if old is not None and old.position == step.expected:
                self.positions[step.shard] = _after(old, step)
        self._folder.written(batch)
        if batch.dead_letters:
            letter = batch.dead_letters[0]
            log.warning(
                "could not understand what was sent, put into dead_letters",
                extra={
                    "number": len(batch.dead_letters),
                    "shard": letter.shard,
                    "frame": letter.frame,
                    "reason": letter.reason[:200],
                },
            )

    def rewind(self) -> None:
        """Start over from the committed positions: nothing that was folded since is remembered.

        Only when no batch is being written.
        """
        self._folder.rewind()
        self.ahead = dict(self.positions)

    def commit(self, entries: Sequence[StreamEntry]) -> list[Batch]:
        """Fold and write these frames, in order after their shards' positions.

        Returns what was committed: one batch, or more where the data had to be cut up. Raises
        `PositionMoved` where another worker has moved a shard.
        """
        try:
            return [self._commit_holding(entries) if self.is_contended else self._commit(entries)]
        except REFUSED as error:
            is_moved = isinstance(error, PositionMoved)
        return self.recommit(entries, is_moved=is_moved)

    def recommit(self, entries: Sequence[StreamEntry], *, is_moved: bool) -> list[Batch]:
        """The same for frames that were refused before; `is_moved`: by `PositionMoved`."""
        self.rewind()
        if is_moved:
            self._metrics.refolded.inc()
        else:  # memory may be behind the ledger, or a partition be gone: look at both again
            self._folder.forget()
            self._unknown = set(self.positions)
            self._weeks.clear()
        knows_more = False
        try:
            return [self._commit_holding(entries)]
        except DuplicateInLedger:
            if not is_moved:
                raise
            knows_more = True
        except DATA_ERRORS as error:
            log.warning("batch refused, looking for the event to blame: %s", error)
            crash_point("after_refusal")
        if knows_more:
            return self.recommit(entries, is_moved=False)
        if len(entries) > 1:
            middle = len(entries) // 2
            committed = self.commit(entries[:middle])
            crash_point("between_halves")
            return committed + self.commit(entries[middle:])
        return [self._commit_without_culprits(entries)]

    def _commit(
        self,
        entries: Sequence[StreamEntry],
        refused: Mapping[EventLocation, str] = NOTHING_REFUSED,
        latest_us: int | None = None,
    ) -> Batch:
        try:
            batch = self.fold(entries, refused, latest_us)
            self.write(prepare(batch), weeks_of(batch))
        except BaseException:
            self.rewind()
            raise
        self.written(batch)
        return batch

    def _commit_holding(self, entries: Sequence[StreamEntry]) -> Batch:
        """The same, and nobody else changes these shards meanwhile."""
        shards = {entry.shard for entry in entries} & self.positions.keys()
        try:
            with self._connection.transaction():
                self._take_over(hold_positions(self._connection, shards))
                batch = self.fold(entries)
                prepared, weeks = prepare(batch), weeks_of(batch)
                # By the other connection: this one must not hold a partition that no one sees.
                self._ensure_weeks(self._reading, weeks)
                self.write(prepared, weeks)
        except BaseException:
            self._weeks.clear()
            self.rewind()
            raise
        self.written(batch)
        self._to_be_held -= self._to_be_held > 0
        return batch

    def _take_over(self, found: Mapping[int, Position]) -> None:
        """Go on from these checkpoints, where runs were changed behind the fold."""
        for shard, position in found.items():
            if position.position != self.positions[shard].position:
                raise PositionMoved(shard, self.positions[shard].position)
        moved = {shard: each for shard, each in found.items() if each != self.positions[shard]}
        if not moved:
            return
        self._to_be_held = HELD_BATCHES
        changed = load_changed_behind(self._reading, self.positions, moved)
        for shard, runs in changed.items():
            if runs is None:
                self._folder.forget(shard)
                self._unknown.add(shard)
            else:
                self._folder.forget_runs(shard, runs)
        self.positions |= moved
        self.ahead |= moved

    def _commit_without_culprits(self, entries: Sequence[StreamEntry]) -> Batch:
        """One frame that was refused: find each event to blame by halving, and leave it out."""
        latest_us = self._intake.latest_us()
        arrivals, _ = decode_frames(entries, redactor=self._intake.redactor, latest_us=latest_us)
        places = [place for arrival in arrivals for place in arrival.places]
        refused: dict[EventLocation, str] = {}
        while len(refused) <= len(places):
            try:
                return self._commit(entries, refused, latest_us)
            except DATA_ERRORS as error:
                left = [place for place in places if place not in refused]
                if not left:
                    raise
                culprit = self._first_refused(entries, left, refused, latest_us)
                refused[culprit] = f"refused by PostgreSQL: {error}".strip()
        raise AssertionError("every event was left out, and still the frame was refused")

    def _first_refused(
        self,
        entries: Sequence[StreamEntry],
        places: list[EventLocation],
        refused: dict[EventLocation, str],
        latest_us: int,
    ) -> EventLocation:
        """The first event with which those before it are refused."""
        fine, bad = 0, len(places)
        while bad - fine > 1:
            middle = (fine + bad) // 2
            later = dict.fromkeys(places[middle:], "not tried yet")
            if self._is_refused(entries, refused | later, latest_us):
                bad = middle
            else:
                fine = middle
        return places[bad - 1]

    def _is_refused(
        self, entries: Sequence[StreamEntry], refused: dict[EventLocation, str], latest_us: int
    ) -> bool:
        try:
            with self._connection.transaction(force_rollback=True):
                write_batch(self._connection, prepare(self.fold(entries, refused, latest_us)))
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
        """Without frames that others have folded, or will.

        A shard can be lost, and come back further on, while a batch of it is on its way.
        """
        positions = {shard: order(step.position) for shard, step in self.ahead.items()}
        firsts: dict[int, str] = {}
        for entry in entries:
            firsts.setdefault(entry.shard, entry.id)
        if all(
            shard in positions and order(first) > positions[shard]
            for shard, first in firsts.items()
        ):
            return entries
        return [
            entry
            for entry in entries
            if entry.shard in positions and order(entry.id) > positions[entry.shard]
        ]

    def _load(self, refs: Sequence[RunRef]) -> Loaded:
        return Loaded(
            load_for_fold(self._reading, refs),
            load_deleted(self._reading, refs),
            load_aged(self._reading, refs),
        )


_run_of: Final = itemgetter(0)


def _after(old: Position, step: PositionUpdate) -> Position:
    return Position(step.position, step.generation, old.consumed + step.consumed, step.change_seq)


def weeks_of(batch: Batch) -> set[date | None]:
    """The ledger's weeks that a batch needs; run keys are ordered by time."""
    runs = set(map(_run_of, batch.events))
    ends = {week_of(UUID(bytes=end(runs))) for end in (min, max)} if runs else set()
    return ends if len(ends) < 2 else {week_of(UUID(bytes=run)) for run in runs}
