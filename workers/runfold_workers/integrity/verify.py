"""Checks whether the tables match the ledger: refolds, compares, writes nothing.

Each chunk is one snapshot. A batch is one transaction, so its rows are consistent there, and ingest
is not delayed, because no lock is taken.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import psycopg

from runfold.protocol.codec import to_datetime
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.ledger.run_keys import BEFORE_ALL, next_keys
from runfold_storage.projections.row_store import NOTHING_STORED, read_rows
from runfold_storage.records.rollup import RollupKey
from runfold_storage.rollups.deltas import HOUR_US, RollupDeltas, add_run_with_nodes, scope_of
from runfold_storage.rollups.recompute import (
    Day,
    Rollups,
    Span,
    add_deltas,
    exclude_expired_hours,
    find_wrong_days,
    hours_with_runs,
    read_rollups,
    recompute_rollups,
    spans_of,
)

from .diff import Mismatch, compare_rollups, compare_run
from .refold import refold
from .selection import Selection

CHUNK_RUNS: Final = 200
SPAN_RUNS: Final = 20_000
"""Runs whose statistics one statement adds up, unless a single hour has more."""


class RunMismatch(NamedTuple):
    """A run with wrong rows."""

    shard: int
    key: bytes
    events: int
    hours: frozenset[int]
    """Hours in which it counts or should count."""
    is_repairable: bool


class RunsChunk(NamedTuple):
    """What was found in runs up to the key `last`; None if the shard has no more runs."""

    last: bytes | None
    looked_at: int
    wrong: list[RunMismatch]
    differences: list[Mismatch]


@contextmanager
def snapshot(connection: psycopg.Connection) -> Iterator[None]:
    """Let all statements see the same state."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def verify_runs(
    connection: psycopg.Connection,
    shard: int,
    selection: Selection,
    after: bytes = BEFORE_ALL,
    limit: int = CHUNK_RUNS,
) -> RunsChunk:
    """Compare the next runs after this key."""
    with snapshot(connection):
        only = selection.key_on(shard)
        keys = next_keys(connection, shard, after, limit) if only is None else list(only)
        stored = read_rows(connection, shard, keys)
        # Without a row only its refold can tell; the ledger of other runs need not be read.
        wanted = [
            key
            for key in keys
            if key not in stored or stored[key].row is None or selection.selects(stored[key].row)
        ]
        refolded = refold(connection, shard, wanted)
    wrong: list[RunMismatch] = []
    differences: list[Mismatch] = []
    for key in wanted:
        should, was = refolded[key], stored.get(key, NOTHING_STORED)
        if was.row is None and (should.is_aged or not selection.selects(should.rows.row)):
            continue
        found = compare_run(shard, key, should, was)
        if found:
            differences += found
            hours = frozenset(scope_of(row)[2] for row in (was.row, should.rows.row) if row)
            is_repairable = should.unreadable is None
            wrong.append(RunMismatch(shard, key, should.events, hours, is_repairable))
    is_last = only is not None or len(keys) < limit
    return RunsChunk(None if is_last else keys[-1], len(wanted), wrong, differences)


def verify_shard(
    connection: psycopg.Connection, shard: int, selection: Selection, after: bytes | None
) -> Iterator[RunsChunk]:
    """Compare the runs of a shard after this key, chunk by chunk; None: there are no more."""
    while after is not None:
        chunk = verify_runs(connection, shard, selection, after)
        yield chunk
        after = chunk.last


def make_spans(
    connection: psycopg.Connection, selection: Selection, most_runs: int = SPAN_RUNS
) -> list[Span]:
    """Return consecutive hours in groups of a bounded number of runs, or those of a single run."""
    if selection.run is not None:
        return _spans_of_run(connection, selection)
    spans: list[Span] = []
    runs = 0
    for hour_us, n in hours_with_runs(connection):
        if not selection.covers_hour(hour_us):
            continue
        if spans and runs + n <= most_runs:
            spans[-1] = spans[-1]._replace(end_us=hour_us + HOUR_US)
            runs += n
        else:
            scope = (None, selection.workflow, selection.project)
            spans.append(Span(hour_us, hour_us + HOUR_US, *scope))
            runs = n
    return spans


def _spans_of_run(connection: psycopg.Connection, selection: Selection) -> list[Span]:
    """Return the statistics in which the single selected run counts or should count."""
    counted: RollupDeltas = {}
    with snapshot(connection):
        for shard in load_positions(connection):
            for key in selection.key_on(shard) or ():
                stored = read_rows(connection, shard, [key]).get(key, NOTHING_STORED)
                for rows in (stored, refold(connection, shard, [key])[key].rows):
                    add_run_with_nodes(counted, rows.row, rows.nodes.values(), 1)
    return spans_of(counted)


def verify_rollups(
    connection: psycopg.Connection, span: Span, wrong: Sequence[RunMismatch] = ()
) -> list[tuple[RollupKey, Mismatch]]:
    """Compare the statistics of a span; `wrong` runs count as they are refolded."""
    with snapshot(connection):
        found, expected = sums_of(connection, span, wrong)
    return list(compare_rollups(found, expected))


def sums_of(
    connection: psycopg.Connection, span: Span, wrong: Sequence[RunMismatch] = ()
) -> tuple[Rollups, Rollups]:
    """Return the stored statistics of a span, and the expected ones."""
    concerned = [
        run
        for run in wrong
        if run.is_repairable and any(span.first_us <= hour < span.end_us for hour in run.hours)
    ]
    expected = recompute_rollups(connection, span, [run.key for run in concerned])
    by_shard: dict[int, list[bytes]] = defaultdict(list)
    for run in concerned:
        by_shard[run.shard].append(run.key)
    for shard, keys in by_shard.items():
        differences: RollupDeltas = {}
        for refolded in refold(connection, shard, keys).values():
            row, nodes = refolded.rows
            if row is not None and span.covers(row):
                add_run_with_nodes(differences, row, nodes.values(), 1)
        exclude_expired_hours(connection, span, differences)
        add_deltas(expected, differences)
    return read_rollups(connection, span), expected


def verify_days(connection: psycopg.Connection, selection: Selection) -> list[Day]:
    """Return days that are not the sum of their hours; [] if only some runs are selected."""
    if selection.run or selection.project or selection.workflow:
        return []
    bounds = (selection.since_us, selection.until_us)
    since, until = (None if bound is None else to_datetime(bound) for bound in bounds)
    return find_wrong_days(connection, since, until)
