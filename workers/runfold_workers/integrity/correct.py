"""Corrects rows and statistics, each time in one short transaction that locks one shard.

The statistics of a corrected run change by deltas, old row to new row, as in a batch; statistics
that were wrong themselves are replaced by sums over the rows.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import psycopg

from runfold.crash_points import crash_point
from runfold_storage.projections.batch_writer import write_projections
from runfold_storage.projections.row_store import (
    NOTHING_STORED,
    delete_attempts,
    delete_rows,
    read_rows,
)
from runfold_storage.records.rollup import RollupKey
from runfold_storage.records.rows import Batch, NodeRow, RunRow
from runfold_storage.rollups.deltas import RollupDeltas, add_run_with_nodes
from runfold_storage.rollups.recompute import Span, replace_rollups, spans_of
from runfold_storage.rollups.shard_lock import lock_shard

from .diff import Mismatch, compare_rollups, compare_run
from .refold import refold
from .verify import sums_of


class Correction(NamedTuple):
    """What was corrected, and the statistics in which the runs count."""

    runs: int
    differences: list[Mismatch]
    spans: list[Span]


def correct_runs(connection: psycopg.Connection, shard: int, keys: Sequence[bytes]) -> Correction:
    """Refold these runs and write what differs; needs `batch_writer.prepare_session` before."""
    with lock_shard(connection, shard) as held:
        # After the lock: no other process changes the rows, and all commits are visible.
        stored = read_rows(connection, shard, keys)
        refolded = refold(connection, shard, keys)
        differences: list[Mismatch] = []
        stats: RollupDeltas = {}
        runs: list[tuple[RunRow, int]] = []
        nodes: list[NodeRow] = []
        surplus: list[bytes] = []
        surplus_attempts: list[NodeRow] = []
        corrected, change_seq = 0, held.change_seq
        for key in keys:
            was = stored.get(key, NOTHING_STORED)
            found = compare_run(shard, key, refolded[key], was)
            if not found or refolded[key].unreadable is not None:
                continue
            should = refolded[key].rows
            corrected += 1
            differences += found
            add_run_with_nodes(stats, was.row, was.nodes.values(), -1)
            add_run_with_nodes(stats, should.row, should.nodes.values(), 1)
            if should.row is None:
                surplus.append(key)
                continue
            change_seq += 1
            runs.append((should.row, change_seq))
            nodes += [
                node for attempt, node in should.nodes.items() if was.nodes.get(attempt) != node
            ]
            surplus_attempts += [
                node for attempt, node in was.nodes.items() if attempt not in should.nodes
            ]
        if not corrected:
            return Correction(0, [], [])
        delete_attempts(connection, surplus_attempts)
        write_projections(
            connection, Batch(advances=[], changed_runs=runs, changed_nodes=nodes, stats=stats)
        )
        if runs:
            held.bump_generation([UUID(bytes=row.run) for row, _ in runs])
        if surplus:
            names = dict(delete_rows(connection, shard, surplus))
            deleted = [UUID(bytes=key) for key in surplus]
            held.bump_generation(deleted, [names.get(run, str(run)) for run in deleted])
        crash_point("before_correction_commit")
    return Correction(corrected, differences, spans_of(stats))


def correct_span(connection: psycopg.Connection, span: Span) -> list[RollupKey]:
    """Replace wrong rollups of a span of one shard by sums over the rows."""
    assert span.shard is not None
    with lock_shard(connection, span.shard) as held:
        held.merge_deltas()
        found, expected = sums_of(connection, span)
        wrong = [key for key, _ in compare_rollups(found, expected)]
        if wrong:
            replace_rollups(connection, {key: expected.get(key) for key in wrong})
    return wrong
