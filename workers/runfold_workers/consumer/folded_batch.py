"""A batch that waits to be written, and can be moved onto a later checkpoint.

A batch is folded while the one before it is written, and other processes may change runs of its
shards at any time (deletions, corrections). Each such change raises a shard's generation and takes
numbers of its change log. If none of the batch's own runs was changed, its rows are right all the
same: only its generation and its numbers are not.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

from runfold.protocol.ids import run_key_bytes
from runfold_storage.checkpoints.positions import Position
from runfold_storage.ledger.partitions import week_of
from runfold_storage.projections.batch_encoding import (
    DEFAULT_LIMITS,
    EncodedBatch,
    SingleStatementLimits,
    encode_batch,
    renumber,
)
from runfold_storage.records.rows import Batch

ExternalChanges = Mapping[int, Collection[bytes] | None]
"""Keys of the runs that other processes changed, by shard; None if they are not known."""


@dataclass(slots=True)
class FoldedBatch:
    """A batch and what is written of it; raises `psycopg.DataError` if it cannot be stored."""

    batch: Batch
    limits: SingleStatementLimits = DEFAULT_LIMITS
    encoded: EncodedBatch = field(init=False)
    weeks: set[date | None] = field(init=False)
    """Of the ledger's partitions that it needs."""
    changes: ExternalChanges = field(default_factory=dict)
    """What was found when it was written."""

    def __post_init__(self) -> None:
        self.encoded = encode_batch(self.batch, self.limits)
        # Run keys are ordered by time, so the ends usually suffice.
        runs = {event[0] for event in self.batch.events}
        ends = {week_of(UUID(bytes=end(runs))) for end in (min, max)} if runs else set()
        self.weeks = ends if len(ends) < 2 else {week_of(UUID(bytes=run)) for run in runs}

    @property
    def shards(self) -> list[int]:
        """The shards that it advances."""
        return [step.shard for step in self.batch.advances]

    def conflicts_with(self, changes: ExternalChanges) -> bool:
        """Return whether one of its runs was changed, or may have been."""
        changed = {shard: runs for shard, runs in changes.items() if shard in self.shards}
        return None in changed.values() or any(
            run_key_bytes(run) in (changed.get(shard) or ())
            for shard, runs in self.batch.run_ids
            for run in runs
        )

    def rebase(self, positions: Mapping[int, Position]) -> None:
        """Move it onto these checkpoints, of the same positions: number its changes anew."""
        batch = self.batch
        numbered = Counter(row.shard for row, _ in batch.runs)
        offsets: dict[int, int] = {}
        for index, step in enumerate(batch.advances):
            base = positions[step.shard]
            change_seq = base.change_seq + numbered[step.shard]
            offsets[step.shard] = change_seq - step.change_seq
            batch.advances[index] = step._replace(generation=base.generation, change_seq=change_seq)
        for rows in (batch.new_runs, batch.changed_runs):
            rows[:] = [(row, number + offsets[row.shard]) for row, number in rows]
        self.encoded = renumber(self.encoded, batch)
