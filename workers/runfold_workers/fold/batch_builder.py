"""From frames to a batch: drop duplicates, fold, and collect the rows that changed.

Pure except for the cache: the same frames on the same cache make the same batch. After `fold` the
cache assumes that the batch is committed; if it is not, the caller must `rewind`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from runfold_storage.checkpoints.positions import Position
from runfold_storage.ledger.events import with_run_id
from runfold_storage.records.rows import (
    Batch,
    DeadLetter,
    LedgerRow,
    NodeRow,
    PositionUpdate,
    RunRow,
)
from runfold_storage.rollups.deltas import RollupDeltas, add_node, add_run, change_run, scope_of

from .event_facts import HEARTBEAT, SIGNS
from .frame_decoder import DecodedEvents, StreamEntry, exclude, misrouted_events
from .projection import node_row, run_row
from .reducers import REDUCERS, apply_liveness_event
from .run_cache import Load, RunCache
from .run_state import Attempt, RunState

MAX_CACHE_BYTES: Final = 80 * 1024 * 1024
"""States of runs: some 20,000 runs of four nodes."""


class BatchBuilder:
    """Folds frames into batches, with recent runs in a `cache`."""

    def __init__(
        self,
        load: Load,
        *,
        shards: int | None = None,
        max_cache_bytes: int = MAX_CACHE_BYTES,
    ) -> None:
        self._shards = shards
        self.cache = RunCache(load, max_cache_bytes)
        self._folded = 0
        self._written = 0

    def fold(
        self,
        entries: Sequence[StreamEntry],
        decoded: tuple[list[DecodedEvents], list[DeadLetter]],
        positions: Mapping[int, Position],
    ) -> Batch:
        """Return what these frames change; they follow their shards' positions without a gap.

        `decoded` are their events and dead letters (`decode_frames`).
        """
        self.cache.shrink(self._written)
        self._folded += 1
        arrivals, dead_letters = decoded
        touched: list[RunState] = []
        ledger: list[LedgerRow] = []
        new_events: dict[int, int] = {}
        ignored: dict[tuple[int, str], int] = {}
        routed = [self._admit(arrival, dead_letters) for arrival in arrivals]
        self.cache.look_up()
        for arrival in routed:
            runs = self._recall(arrival, touched)
            before = len(ledger)
            for reason, number in self._apply(arrival, runs, ledger).items():
                key = arrival.shard, reason
                ignored[key] = ignored.get(key, 0) + number
            new_events[arrival.shard] = new_events.get(arrival.shard, 0) + len(ledger) - before
        changes = _Changes({shard: step.change_seq for shard, step in positions.items()})
        for run in touched:
            changes.settle(run)
        self.cache.weigh(touched)
        return Batch(
            number=self._folded,
            advances=_advances(entries, arrivals, positions, changes.change_seqs),
            events=ledger,
            new_runs=changes.new_runs,
            changed_runs=changes.changed_runs,
            new_nodes=changes.new_nodes,
            changed_nodes=changes.changed_nodes,
            stats=changes.stats,
            dead_letters=dead_letters,
            run_ids=[(arrival.shard, arrival.columns.runs) for arrival in routed],
            new_events=new_events,
            ignored=ignored,
        )

    def written(self, batch: Batch) -> None:
        """Record that this batch, and so all batches before it, are committed."""
        self._written = batch.number

    def rewind(self) -> None:
        """Drop the runs that batches after the last written one have touched."""
        self.cache.rewind(self._written)

    def _admit(self, arrival: DecodedEvents, dead_letters: list[DeadLetter]) -> DecodedEvents:
        """Add the runs to the cache; leave out events of runs that belong to another shard.

        The shard of a cached run has been checked before.
        """
        if self._shards is not None:
            uncached = self.cache.uncached_runs(arrival.shard, arrival.columns.runs)
            arrival, letters = exclude(arrival, misrouted_events(arrival, uncached, self._shards))
            dead_letters += letters
        self.cache.admit(arrival.shard, arrival.columns.runs)
        return arrival

    def _recall(self, arrival: DecodedEvents, touched: list[RunState]) -> list[RunState | None]:
        used = arrival.columns.runs
        runs = self.cache.recall(arrival.shard, used)
        batch = self._folded
        for run in runs:
            if run is not None and run.batch != batch:
                run.batch = batch
                touched.append(run)
        return runs

    def _apply(
        self, arrival: DecodedEvents, runs: Sequence[RunState | None], ledger: list[LedgerRow]
    ) -> dict[str, int]:
        """Apply new events: the innermost loop, with `EventIdSet.add` and `apply` inlined.

        Return how many events are ignored, by reason: their run is `deleted` or `expired`.
        """
        ignored: dict[str, int] = {}
        shard = arrival.shard
        append = ledger.append
        reducers = REDUCERS
        for number, kind, event_id, at_us, body, fact in zip(
            *arrival.columns[1:], arrival.facts, strict=True
        ):
            run = runs[number]
            if run is None:
                is_expired = (shard, arrival.columns.runs[number]) in self.cache.expired
                reason = "expired" if is_expired else "deleted"
                ignored[reason] = ignored.get(reason, 0) + 1
                continue
            seen = run.seen
            if event_id == seen.expected and seen.beyond is None:
                seen.expected = event_id + 1
            elif not seen.add(event_id) and kind != HEARTBEAT:
                continue
            if kind in SIGNS:
                if not apply_liveness_event(run, kind, at_us, fact):
                    continue
            else:
                if at_us > run.last_event_us:
                    run.last_event_us = at_us
                if at_us < run.created_us:
                    run.created_us = at_us
                reducers[kind](run, (at_us, event_id), fact)
            external_id = run.external_id
            kept = body if external_id is None else with_run_id(body, external_id)
            append((run.key, event_id, at_us, kind, shard, kept))
        return ignored


class _Changes:
    """The rows that changed, numbered for the change feed, and the rollup deltas."""

    def __init__(self, change_seqs: dict[int, int]) -> None:
        self.change_seqs = change_seqs
        self.new_runs: list[tuple[RunRow, int]] = []
        self.changed_runs: list[tuple[RunRow, int]] = []
        self.new_nodes: list[NodeRow] = []
        self.changed_nodes: list[NodeRow] = []
        self.stats: RollupDeltas = {}

    def settle(self, run: RunState) -> None:
        """Derive a run's rows from its state and collect what changed."""
        replaced: list[tuple[Attempt, NodeRow | None]] = []
        for attempt in run.take_changed():
            old, new = attempt.row, node_row(run, attempt)
            if new != old:
                attempt.row = new
                replaced.append((attempt, old))
                (self.new_nodes if old is None else self.changed_nodes).append(new)
        before = run.row
        row = run.row = run_row(run)
        # Late output changes no row, but subscribers of the run need a notification.
        has_changed = row != before or replaced or run.has_output
        run.has_output = False
        if row is None or not has_changed:  # None: only heartbeats so far
            return
        self._count(run, row, before, replaced)
        self.change_seqs[row.shard] += 1
        runs = self.new_runs if before is None else self.changed_runs
        runs.append((row, self.change_seqs[row.shard]))

    def _count(
        self,
        run: RunState,
        row: RunRow,
        before: RunRow | None,
        replaced: list[tuple[Attempt, NodeRow | None]],
    ) -> None:
        stats = self.stats
        scope = scope_of(row)
        if before is None:
            add_run(stats, scope, row, 1)
        else:
            old_scope = scope_of(before)
            if old_scope == scope:
                change_run(stats, scope, before, row)
            else:  # the run and all its attempts move to other rollups
                add_run(stats, old_scope, before, -1)
                add_run(stats, scope, row, 1)
                old_rows = {id(attempt): old for attempt, old in replaced}
                attempts = [each for name in run.nodes for each in run.attempts(name)]
                replaced = [(each, old_rows.get(id(each), each.row)) for each in attempts]
            for _, old in replaced:
                if old is not None:
                    add_node(stats, old_scope, old, -1)
        for attempt, _ in replaced:
            if attempt.row is not None:
                add_node(stats, scope, attempt.row, 1)


def _advances(
    entries: Sequence[StreamEntry],
    arrivals: Iterable[DecodedEvents],
    positions: Mapping[int, Position],
    change_seqs: Mapping[int, int],
) -> list[PositionUpdate]:
    last = {entry.shard: entry.id for entry in entries}
    consumed = Counter(entry.shard for entry in entries)
    newest: dict[int, int] = {}
    for arrival in arrivals:
        times, shard = arrival.columns.times, arrival.shard
        if times:
            newest[shard] = max(newest.get(shard, times[0]), *times)
    return [
        PositionUpdate(
            shard=shard,
            expected=positions[shard].position,
            generation=positions[shard].generation,
            position=position,
            consumed=consumed[shard],
            change_seq=change_seqs[shard],
            folded_us=newest.get(shard),
        )
        for shard, position in last.items()
    ]
