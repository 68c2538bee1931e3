"""From frames to a batch: leave out what was seen before, fold, and find what has changed.

Pure but for the memory: the same frames on the same memory make the same batch. After `fold` the
memory is that of a committed batch; when the batch is not committed, the caller must `forget`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from runfold.events import Heartbeat
from runfold_storage.ledger import to_row
from runfold_storage.positions import Position
from runfold_storage.rows import Advance, Batch, LedgerRow, NodeRow, RunRow

from .arrivals import Arrival, Place, StreamEntry, take_apart
from .memory import Load, Memory, RememberedRun
from .rollups import Differences, Scope, add_node, add_run, scope_of

MAX_MEMORY_WEIGHT: Final = 200_000
"""Runs and attempts at nodes, at one to two kilobytes each."""


class Folder:
    """Folds frames into batches, with the runs of late in memory."""

    def __init__(
        self, load: Load, *, shards: int | None = None, max_weight: int = MAX_MEMORY_WEIGHT
    ) -> None:
        self._shards = shards
        self._memory = Memory(load, max_weight)

    def fold(
        self,
        entries: Sequence[StreamEntry],
        positions: Mapping[int, Position],
        refused: Mapping[Place, str] | None = None,
    ) -> Batch:
        """What these frames change; they are all that follows their shards' positions, in order.

        `refused` names events that the database will not have, and why: dead letters.
        """
        arrivals, dead_letters = take_apart(entries, refused or {}, self._shards)
        runs = self._memory.recall(
            {
                (arrival.shard, envelope.run)
                for arrival in arrivals
                for _, envelope, _ in arrival.events
            }
        )
        touched: dict[tuple[int, str], RememberedRun] = {}
        ledger: list[LedgerRow] = []
        for shard, _, events in arrivals:
            for _, envelope, event in events:
                ref = (shard, envelope.run)
                run = runs.get(ref)
                if run is None:  # deleted
                    continue
                state = run.state
                if isinstance(event, Heartbeat):
                    state.seen.add(envelope.id)  # so that the ids after it count on without a gap
                    state.apply(event, envelope.id, envelope.at_us)
                elif state.seen.add(envelope.id):
                    state.apply(event, envelope.id, envelope.at_us)
                    ledger.append(to_row(envelope, shard, state.key))
                else:
                    continue
                touched[ref] = run
        changes = _Changes({shard: step.feed_seq for shard, step in positions.items()})
        for run in touched.values():
            changes.settle(run)
        self._memory.shrink(runs.values())
        return Batch(
            advances=_advances(entries, arrivals, positions, changes.feed_seqs),
            events=ledger,
            runs=changes.runs,
            nodes=changes.nodes,
            stats=changes.stats,
            dead_letters=dead_letters,
        )

    def forget(self, shard: int | None = None) -> None:
        """Drop what is remembered of a shard, or everything: the next fold reads the ledger."""
        self._memory.forget(shard)


class _Changes:
    """The rows that changed, numbered for watchers, and the differences that follow."""

    def __init__(self, feed_seqs: dict[int, int]) -> None:
        self.feed_seqs = feed_seqs
        self.runs: list[tuple[RunRow, int]] = []
        self.nodes: list[NodeRow] = []
        self.stats: Differences = {}

    def settle(self, run: RememberedRun) -> None:
        """Bring a run's rows up to its state, and note what that changes."""
        before = run.row
        replaced = run.settle()
        row = run.row
        if row is None:  # only heartbeats so far
            return
        changed = [run.nodes[node] for node, old in replaced.items() if run.nodes[node] != old]
        if row == before and not changed:
            return
        self.nodes += changed
        self._count_nodes(run, replaced, before and scope_of(before), scope_of(row))
        if before is not None:
            add_run(self.stats, before, -1)
        add_run(self.stats, row, 1)
        self.feed_seqs[row.shard] += 1
        self.runs.append((row, self.feed_seqs[row.shard]))

    def _count_nodes(
        self,
        run: RememberedRun,
        replaced: Mapping[tuple[str, int], NodeRow | None],
        old_scope: Scope | None,
        scope: Scope,
    ) -> None:
        moved = replaced
        if old_scope is not None and old_scope != scope:  # all of them count elsewhere now
            moved = {node: replaced.get(node, row) for node, row in run.nodes.items()}
        for node, old in moved.items():
            if old is not None and old_scope is not None:
                add_node(self.stats, old_scope, old, -1)
            add_node(self.stats, scope, run.nodes[node], 1)


def _advances(
    entries: Iterable[StreamEntry],
    arrivals: Iterable[Arrival],
    positions: Mapping[int, Position],
    feed_seqs: Mapping[int, int],
) -> list[Advance]:
    last: dict[int, str] = {}
    consumed: dict[int, int] = {}
    for entry in entries:
        last[entry.shard] = entry.id
        consumed[entry.shard] = consumed.get(entry.shard, 0) + 1
    newest: dict[int, int] = {}
    for shard, _, events in arrivals:
        times = [envelope.at_us for _, envelope, _ in events]
        if times:
            newest[shard] = max(newest.get(shard, times[0]), *times)
    return [
        Advance(
            shard=shard,
            believed=positions[shard].position,
            generation=positions[shard].generation,
            position=position,
            consumed=consumed[shard],
            feed_seq=feed_seqs[shard],
            folded_us=newest.get(shard),
        )
        for shard, position in last.items()
    ]
