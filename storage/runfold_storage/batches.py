"""Writing a batch of the fold: all of it in one transaction, or none.

The positions move first, by compare-and-set: their row locks keep a second writer of the same
shard waiting until it finds that the position has moved. Rows go in by COPY; those that may be
there already go through a temporary table and INSERT … ON CONFLICT, sorted by key so that two
writers cannot deadlock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from runfold.codec import to_datetime

from .copying import CopyColumn, copy_rows
from .errors import LedgerKnowsMore
from .histogram import bin_of
from .positions import advance_positions
from .rows import Batch, DeadLetter, LedgerRow, RunRow, StatsDifference, StatsKey

DATA_ERRORS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
)
"""What PostgreSQL raises when a batch's data are to blame, and repeating it would not help."""


def write_batch(connection: psycopg.Connection, batch: Batch) -> None:
    """Write a batch in the transaction that is open; the caller commits.

    Raises `PositionMoved` when another worker was there first, `LedgerKnowsMore` when an event
    that the batch takes for new is in the ledger, and `DATA_ERRORS`; roll back after any.
    """
    advance_positions(connection, batch.advances)
    _write_events(connection, batch.events)
    _upsert(connection, "runs", _RUNS, _RUNS_KEY, map(_run_values, batch.runs), _SEEN_AT)
    _upsert(connection, "nodes", _NODES, _NODES_KEY, batch.nodes)
    _add_stats(connection, batch.stats)
    _write_dead_letters(connection, batch.dead_letters)


def _columns(**kinds: str) -> tuple[CopyColumn, ...]:
    return tuple(CopyColumn(name, kind) for name, kind in kinds.items())


EVENT_COLUMNS: Final = _columns(run="uuid", id="int8", at="us", type="text", shard="int2", body="utf8")
_RUNS_KEY: Final = ("shard", "run")
_RUNS: Final = _columns(
    shard="int2",
    run="uuid",
    given_id="text",
    project="text",
    workflow="text",
    status="text",
    attempt="int2",
    parent_run="text",
    trigger_type="text",
    user="text",
    session="text",
    tags="jsonb",
    created_at="us",
    queued_at="us",
    started_at="us",
    finished_at="us",
    seen_at="us",
    duration_us="int8",
    input_tokens="int8",
    output_tokens="int8",
    cost_nano_usd="int8",
    nodes_total="int4",
    nodes_pending="int4",
    nodes_running="int4",
    nodes_completed="int4",
    nodes_failed="int4",
    nodes_skipped="int4",
    nodes_cancelled="int4",
    exit_code="int4",
    error_type="text",
    error_message="text",
    error_node="text",
    feed_seq="int8",
)
_TAGS: Final = RunRow._fields.index("tags")
# The ledger keeps no heartbeats, so a run that is folded again has forgotten them.
_SEEN_AT: Final = {"seen_at": sql.SQL("greatest(runs.seen_at, excluded.seen_at)")}
_NODES_KEY: Final = ("shard", "run", "node", "attempt")
_NODES: Final = _columns(
    shard="int2",
    run="uuid",
    node="text",
    attempt="int2",
    name="text",
    status="text",
    node_type="text",
    parents="text[]",
    started_at="us",
    finished_at="us",
    duration_us="int8",
    input_tokens="int8",
    output_tokens="int8",
    cost_nano_usd="int8",
    error_type="text",
    error_message="text",
)
_STATS_KEY: Final = ("workflow", "project", "node", "hour", "status", "shard")
_STATS: Final = _columns(
    workflow="text",
    project="text",
    node="text",
    hour="us",
    status="text",
    shard="int2",
    n="int8",
    n_timed="int8",
    duration_min_us="int8",
    duration_max_us="int8",
    duration_sum_us="numeric",
    input_tokens="numeric",
    output_tokens="numeric",
    cost_nano_usd="numeric",
    bins="int2[]",
    bin_counts="int8[]",
)


def _write_events(connection: psycopg.Connection, events: Sequence[LedgerRow]) -> None:
    if not events:
        return
    try:
        copy_rows(connection, "events", EVENT_COLUMNS, events)
    except psycopg.errors.UniqueViolation as error:
        raise LedgerKnowsMore(str(error)) from error


def _run_values(run: tuple[RunRow, int]) -> list[Any]:
    values: list[Any] = [*run[0], run[1]]
    if values[_TAGS] is not None:
        values[_TAGS] = Jsonb(values[_TAGS])
    return values


def _upsert(
    connection: psycopg.Connection,
    table: str,
    columns: Sequence[CopyColumn],
    key: Sequence[str],
    rows: Iterable[Sequence[Any]],
    merged: Mapping[str, sql.Composable] = MappingProxyType({}),
) -> None:
    """Write final images, whether the rows are there or not; `merged` columns look at both."""
    changed = {
        column.name: sql.SQL("excluded.{}").format(sql.Identifier(column.name))
        for column in columns
        if column.name not in key
    }
    assignments = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), value)
        for name, value in (changed | dict(merged)).items()
    )
    _through_temporary_table(connection, table, columns, key, rows, assignments)


_ADD_UP: Final = sql.SQL(
    """
    n = stats.n + excluded.n,
    n_timed = stats.n_timed + excluded.n_timed,
    duration_min_us = least(stats.duration_min_us, excluded.duration_min_us),
    duration_max_us = greatest(stats.duration_max_us, excluded.duration_max_us),
    duration_sum_us = stats.duration_sum_us + excluded.duration_sum_us,
    input_tokens = stats.input_tokens + excluded.input_tokens,
    output_tokens = stats.output_tokens + excluded.output_tokens,
    cost_nano_usd = stats.cost_nano_usd + excluded.cost_nano_usd,
    (bins, bin_counts) = (
        SELECT added.bins, added.bin_counts
        FROM runfold_add_bins(
            stats.bins, stats.bin_counts, excluded.bins, excluded.bin_counts
        ) AS added
    )
    """
)


def _add_stats(connection: psycopg.Connection, stats: Mapping[StatsKey, StatsDifference]) -> None:
    changed = {key: difference for key, difference in stats.items() if difference.changes}
    rows = (_stats_values(key, difference) for key, difference in changed.items())
    _through_temporary_table(connection, "stats", _STATS, _STATS_KEY, rows, _ADD_UP)
    for key, difference in sorted(changed.items()):
        if difference.takes_back:
            _find_extremes(connection, key)


def _stats_values(key: StatsKey, difference: StatsDifference) -> list[Any]:
    durations = difference.durations
    bins: dict[int, int] = {}
    for duration_us, count in durations.items():
        index = bin_of(duration_us)
        bins[index] = bins.get(index, 0) + count
    came = [duration_us for duration_us, count in durations.items() if count > 0]
    return [
        *key,
        difference.n,
        sum(durations.values()),
        min(came, default=None),
        max(came, default=None),
        sum(duration_us * count for duration_us, count in durations.items()),
        difference.input_tokens,
        difference.output_tokens,
        difference.cost_nano_usd,
        list(bins),
        list(bins.values()),
    ]


_EXTREMES: Final = """
    UPDATE stats SET (duration_min_us, duration_max_us) = (
        SELECT min(duration_us), max(duration_us)
        FROM (
            SELECT r.duration_us
            FROM runs AS r
            WHERE %(node)s = '' AND r.status = %(status)s
              AND r.workflow = %(workflow)s AND r.project = %(project)s AND r.shard = %(shard)s
              AND r.created_at >= %(hour)s AND r.created_at < %(hour)s + interval '1 hour'
            UNION ALL
            SELECT n.duration_us
            FROM runs AS r JOIN nodes AS n ON n.shard = r.shard AND n.run = r.run
            WHERE n.name = %(node)s AND n.status = %(status)s
              AND r.workflow = %(workflow)s AND r.project = %(project)s AND r.shard = %(shard)s
              AND r.created_at >= %(hour)s AND r.created_at < %(hour)s + interval '1 hour'
        ) AS counted
    )
    WHERE workflow = %(workflow)s AND project = %(project)s AND node = %(node)s
      AND hour = %(hour)s AND status = %(status)s AND shard = %(shard)s
"""


def _find_extremes(connection: psycopg.Connection, key: StatsKey) -> None:
    """Look a rollup's minimum and maximum up among its rows; rare, so it may cost a scan."""
    connection.execute(_EXTREMES, {**key._asdict(), "hour": to_datetime(key.hour_us)})


def _through_temporary_table(
    connection: psycopg.Connection,
    table: str,
    columns: Sequence[CopyColumn],
    key: Sequence[str],
    rows: Iterable[Sequence[Any]],
    assignments: sql.Composable,
) -> None:
    first = next(iterator := iter(rows), None)
    if first is None:
        return
    temporary = f"batch_{table}"
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    keys = sql.SQL(", ").join(map(sql.Identifier, key))
    # Kept for the session and emptied by COMMIT: a new one each time would bloat the catalogue.
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {}) ON COMMIT DELETE ROWS").format(
            sql.Identifier(temporary), sql.Identifier(table)
        )
    )
    copy_rows(connection, temporary, columns, _chain(first, iterator))
    connection.execute(
        sql.SQL(
            "INSERT INTO {table} ({names}) SELECT {names} FROM {temporary} ORDER BY {keys} "
            "ON CONFLICT ({keys}) DO UPDATE SET {assignments}"
        ).format(
            table=sql.Identifier(table),
            temporary=sql.Identifier(temporary),
            names=names,
            keys=keys,
            assignments=assignments,
        )
    )


def _chain(first: Sequence[Any], rest: Iterator[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    yield first
    yield from rest


def _write_dead_letters(connection: psycopg.Connection, dead_letters: Sequence[DeadLetter]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO dead_letters (shard, frame, ordinal, reason, raw)
            VALUES (%s, %s, %s, %s, %s)
            ON CONFLICT (shard, frame, ordinal) DO NOTHING
            """,
            dead_letters,
        )
