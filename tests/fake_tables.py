"""The tables on paper: what a batch makes of them, without a database."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from event_histories import SHARDS
from oracle import HOUR_US, SIGNS, Projection, Stat
from runfold.protocol.codec import TYPES
from runfold.serialization.redaction import Redactor
from runfold_storage.checkpoints.positions import Position
from runfold_storage.ledger.events import StoredEvent
from runfold_storage.records.histogram import bin_of
from runfold_storage.records.rollup import RollupDelta, RollupKey
from runfold_storage.records.rows import Batch, NodeRow, RunRow
from runfold_workers.fold.batch_builder import BatchBuilder
from runfold_workers.fold.frame_decoder import (
    NOTHING_REFUSED,
    EventLocation,
    StreamEntry,
    decode_frames,
)
from runfold_workers.fold.run_cache import Loaded, RunRef


def fold_frames(
    builder: BatchBuilder,
    entries: Sequence[StreamEntry],
    positions: Mapping[int, Position],
    refused: Mapping[EventLocation, str] = NOTHING_REFUSED,
) -> Batch:
    """Decode and fold these frames."""
    return builder.fold(entries, decode_frames(entries, refused, redactor=Redactor()), positions)


class FakeTables:
    """The tables as dictionaries; a batch is applied with the checks that PostgreSQL would make."""

    def __init__(self, shards: int = SHARDS) -> None:
        self.ledger: dict[RunRef, dict[int, tuple[int, str, bytes]]] = {}
        self.tombstones: set[RunRef] = set()
        self.runs: dict[RunRef, RunRow] = {}
        self.nodes: dict[tuple[int, bytes, str, int], NodeRow] = {}
        self.stats: dict[RollupKey, Stat] = {}
        self.positions = {shard: Position("0-0", 0, 0, 0) for shard in range(shards)}
        self.dead_letters: dict[tuple[int, str, int], str] = {}
        self._shuffle = random.Random(1).shuffle

    def load(self, refs: Sequence[RunRef]) -> Loaded:
        """What the ledger has of these runs, in no order."""
        stored = [
            StoredEvent(*ref, event_id, at_us, event_type, body)
            for ref in refs
            for event_id, (at_us, event_type, body) in self.ledger.get(ref, {}).items()
        ]
        self._shuffle(stored)
        return Loaded(stored, self.tombstones & set(refs))

    def apply(self, batch: Batch) -> None:
        """Write a batch."""
        for step in batch.advances:
            was = self.positions[step.shard]
            assert was.position == step.expected
            given = sorted(seq for row, seq in batch.runs if row.shard == step.shard)
            assert given == list(range(was.change_seq + 1, step.change_seq + 1))
            self.positions[step.shard] = Position(
                step.position, step.generation, was.consumed + step.consumed, step.change_seq
            )
        for run, event_id, at_us, kind, shard, body in batch.events:
            of_run = self.ledger.setdefault((shard, run), {})
            assert event_id not in of_run, "an event that the ledger has was taken for new"
            of_run[event_id] = (at_us, TYPES[kind], body)
        for row, _ in batch.new_runs:
            assert (row.shard, row.run) not in self.runs
        for row, _ in batch.changed_runs:
            assert (row.shard, row.run) in self.runs
        for row, _ in batch.runs:
            old = self.runs.get((row.shard, row.run), row)
            self.runs[row.shard, row.run] = row._replace(
                last_event_us=max(row.last_event_us, old.last_event_us)
            )
        for node in batch.new_nodes:
            assert (node.shard, node.run, node.node, node.attempt) not in self.nodes
        for node in batch.changed_nodes:
            assert (node.shard, node.run, node.node, node.attempt) in self.nodes
        for node in batch.nodes:
            self.nodes[node.shard, node.run, node.node, node.attempt] = node
        for key, difference in batch.stats.items():
            if difference.is_nonzero:
                self._add(key, difference)
        for letter in batch.dead_letters:
            place = (letter.shard, letter.frame, letter.ordinal)
            self.dead_letters.setdefault(place, letter.reason)

    def _add(self, key: RollupKey, difference: RollupDelta) -> None:
        stat = self.stats.get(key, Stat())
        bins = dict(stat.bins)
        for duration_us, count in difference.durations.items():
            bins[bin_of(duration_us)] = bins.get(bin_of(duration_us), 0) + count
        came = [length for length, count in difference.durations.items() if count > 0]
        if any(count < 0 for count in difference.durations.values()):
            extremes = self._durations(key)
        else:
            extremes = [stat.duration_min_us, stat.duration_max_us, *came]
        known = [length for length in extremes if length is not None]
        self.stats[key] = Stat(
            stat.n + difference.n,
            stat.duration_count + sum(difference.durations.values()),
            min(known, default=None),
            max(known, default=None),
            stat.duration_sum_us
            + sum(length * count for length, count in difference.durations.items()),
            stat.input_tokens + difference.input_tokens,
            stat.output_tokens + difference.output_tokens,
            stat.cost_nano_usd + difference.cost_nano_usd,
            {index: count for index, count in bins.items() if count},
        )

    def _durations(self, key: RollupKey) -> list[int | None]:
        """Those of all rows that count in this rollup."""
        rows: list[tuple[RunRow, str, RunRow | NodeRow]] = [(r, "", r) for r in self.runs.values()]
        rows += [(self.runs[n.shard, n.run], n.name, n) for n in self.nodes.values()]
        return [
            row.duration_us
            for run, name, row in rows
            if (run.workflow, run.project, name, run.created_us // HOUR_US * HOUR_US)
            == (key.workflow, key.project, key.node, key.hour_us)
            and (row.status, row.shard) == (key.status, key.shard)
        ]


def assert_tables_equal(paper: FakeTables, expected: Projection, *, seen: bool = True) -> None:
    """The tables are those of the definition; `seen`: to the last sign of life, too."""
    if not seen:
        assert paper.runs.keys() == expected.runs.keys()
        expected = replace(
            expected,
            runs={
                ref: row._replace(last_event_us=paper.runs[ref].last_event_us)
                for ref, row in expected.runs.items()
            },
        )
    assert paper.runs == expected.runs
    assert paper.nodes == expected.nodes
    assert {key: stat for key, stat in paper.stats.items() if stat.n} == expected.stats
    empty = [stat for stat in paper.stats.values() if stat.n == 0]
    assert empty == [Stat()] * len(empty), "a rollup that counts nothing adds something up"
    stored = {
        (*ref, event_id): (at_us, event_type, json.loads(body))
        for ref, events in paper.ledger.items()
        for event_id, (at_us, event_type, body) in events.items()
        if event_type not in SIGNS
    }
    assert stored == expected.ledger
