"""Hours recomputed from the rows, and days from hours, to compare and to replace them.

Days and hours change in one transaction (`store`), so a day that is not the sum of its hours was
changed by something else than this code.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from runfold.protocol.codec import MAX_US, to_datetime
from runfold_storage.records.rollup import (
    NO_VALUES,
    ROLLUP_KEY,
    ROLLUP_SUMS,
    ROLLUP_VALUES,
    RollupKey,
    RollupValues,
)
from runfold_storage.records.rows import RunRow
from runfold_storage.tables import RUN_STATUSES

from .deltas import HOUR_US, RollupDeltas
from .shard_lock import lock_shard
from .store import DAY_US, SAME_KEY, key_columns, rebuild_days, sums_by_day, unnested_keys

Rollups = dict[RollupKey, RollupValues]


class Span(NamedTuple):
    """Hours with `first_us` ≤ hour < `end_us`, of one or all shards, workflows and projects."""

    first_us: int
    end_us: int
    shard: int | None = None
    workflow: str | None = None
    project: str | None = None

    def covers(self, run: RunRow) -> bool:
        """Return whether a run counts in it."""
        within = self.first_us <= run.created_us < self.end_us
        own = zip(self[2:], (run.shard, run.workflow, run.project), strict=True)
        return within and all(wanted in (None, value) for wanted, value in own)


def hours_with_runs(connection: psycopg.Connection) -> list[tuple[int, int]]:
    """Return (hour in µs, number of runs that began in it) of each hour with runs or rollups."""
    rows = connection.execute(
        """
        SELECT hour, sum(runs)::bigint
        FROM (
            SELECT (extract(epoch FROM hour) * 1000000)::bigint AS hour, 0 AS runs
            FROM rollups_hourly GROUP BY 1
            UNION ALL
            SELECT (floor(extract(epoch FROM created_at) / 3600) * 3600000000)::bigint, count(*)
            FROM runs GROUP BY 1
        ) AS known
        GROUP BY hour ORDER BY hour
        """
    )
    return rows.fetchall()


def count_by_rollups(
    connection: psycopg.Connection,
    project: str | None,
    workflow: str | None,
    since_us: int | None,
    until_us: int | None,
) -> int:
    """Return the number of runs by the hourly rollups, for whole hours; None means all."""
    ((n,),) = connection.execute(
        """
        SELECT coalesce(sum(n), 0) FROM rollups_hourly
        WHERE node = '' AND (project = %(project)s OR %(project)s::text IS NULL)
          AND (workflow = %(workflow)s OR %(workflow)s::text IS NULL)
          AND (hour > to_timestamp(%(since)s::float8 - 3600) OR %(since)s::float8 IS NULL)
          AND (hour < to_timestamp(%(until)s) OR %(until)s::float8 IS NULL)
        """,
        {
            "project": project,
            "workflow": workflow,
            "since": None if since_us is None else since_us / 1e6,
            "until": None if until_us is None else until_us / 1e6,
        },
    )
    return max(0, int(n))


def recompute_rollups(
    connection: psycopg.Connection, span: Span, without: Sequence[bytes] = ()
) -> Rollups:
    """Recompute rollups from the rows, without some runs; requires a transaction."""
    rollups: Rollups = {}
    parameters = {**_parameters(span), "without": [UUID(bytes=key) for key in without]}
    with connection.cursor(name="add_up") as cursor:  # one row per distinct duration
        cursor.itersize = 5000
        cursor.execute(_ADD_UP, parameters)
        for workflow, project, node, hour_us, status, shard, duration_us, n, *sums in cursor:
            key = RollupKey(workflow, project, node, hour_us, status, shard)
            figures = rollups.get(key)
            if figures is None:
                figures = rollups[key] = RollupValues()
            figures.n += n
            figures.input_tokens += int(sums[0])
            figures.output_tokens += int(sums[1])
            figures.cost_nano_usd += int(sums[2])
            if duration_us is not None:
                figures.add_duration(duration_us, n)
    return rollups


def add_deltas(rollups: Rollups, differences: RollupDeltas) -> None:
    """Add deltas, which remove nothing, to rollups."""
    for key, difference in differences.items():
        rollups.setdefault(key, RollupValues()).merge(difference)


def exclude_expired_hours(
    connection: psycopg.Connection, span: Span, differences: RollupDeltas
) -> None:
    """Remove deltas of hours that cannot be recomputed."""
    rows = connection.execute(
        """
        SELECT project, (extract(epoch FROM hour) * 1000000)::bigint FROM expired_hours
        WHERE hour >= %(first)s AND hour < %(end)s
        """,
        _parameters(span),
    )
    expired = set(rows.fetchall())
    for key in [key for key in differences if (key.project, key.hour_us) in expired]:
        del differences[key]


def read_rollups(connection: psycopg.Connection, span: Span) -> Rollups:
    """Return the stored rollups, including pending deltas, without empty ones."""
    rollups: Rollups = {}
    for row in connection.execute(_READ, _parameters(span)):
        figures = RollupValues.from_row(row[len(ROLLUP_KEY) :])
        if figures != NO_VALUES:
            rollups[RollupKey(*row[: len(ROLLUP_KEY)])] = figures
    return rollups


def replace_rollups(
    connection: psycopg.Connection, rollups: Mapping[RollupKey, RollupValues | None]
) -> None:
    """Replace rollups of locked shards without pending deltas; None deletes a row."""
    connection.execute(
        f"DELETE FROM rollups_hourly AS s USING {unnested_keys()} WHERE {SAME_KEY}",  # noqa: S608
        key_columns(rollups),
    )
    columns = (*ROLLUP_KEY, *ROLLUP_VALUES)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"""
            INSERT INTO rollups_hourly ({", ".join(columns)})
            VALUES ({", ".join(["%s"] * len(columns))})
            """,  # noqa: S608 - made of constants
            [
                (*key._replace(hour_us=to_datetime(key.hour_us)), *figures.as_row())  # type: ignore[arg-type]
                for key, figures in rollups.items()
                if figures is not None
            ],
        )
    for shard in {key.shard for key in rollups}:
        rebuild_days(connection, shard, (key.hour_us for key in rollups if key.shard == shard))


def spans_of(keys: Iterable[RollupKey]) -> list[Span]:
    """Return the smallest spans that cover these rollups."""
    return sorted(
        {
            Span(key.hour_us, key.hour_us + HOUR_US, key.shard, key.workflow, key.project)
            for key in keys
        }
    )


def _parameters(span: Span) -> dict[str, object]:
    end = to_datetime(min(span.end_us, MAX_US))  # the last hour of the calendar ends after it
    return {**span._asdict(), "first": to_datetime(span.first_us), "end": end}


_OF_SPAN: Final = """
    (%(shard)s::smallint IS NULL OR {0}.shard = %(shard)s)
    AND (%(workflow)s::text IS NULL OR {0}.workflow = %(workflow)s)
    AND (%(project)s::text IS NULL OR {0}.project = %(project)s)
    AND NOT EXISTS (
        SELECT FROM expired_hours AS a WHERE a.project = {0}.project AND a.hour = {1}
    )
"""
"""Expired hours are excluded: they cannot be recomputed."""
_OF_RUNS: Final = (
    "r.created_at >= %(first)s AND r.created_at < %(end)s AND r.shard >= 0"
    " AND r.run <> ALL(%(without)s::uuid[]) AND "
    + _OF_SPAN.format("r", "to_timestamp(floor(extract(epoch FROM r.created_at) / 3600) * 3600)")
)
_HOUR: Final = "(floor(extract(epoch FROM r.created_at) / 3600) * 3600000000)::bigint"

_ADD_UP: Final = f"""
    SELECT r.workflow, r.project, '', {_HOUR}, r.status, r.shard, r.duration_us, count(*),
           sum(r.input_tokens), sum(r.output_tokens), sum(r.cost_nano_usd)
    FROM runs AS r WHERE {_OF_RUNS}
    GROUP BY 1, 2, 4, 5, 6, 7
    UNION ALL
    SELECT r.workflow, r.project, n.name, {_HOUR}, n.status, r.shard, n.duration_us, count(*),
           sum(n.input_tokens), sum(n.output_tokens), sum(n.cost_nano_usd)
    FROM runs AS r JOIN nodes AS n ON n.shard = r.shard AND n.run = r.run
    WHERE {_OF_RUNS}
    GROUP BY 1, 2, 3, 4, 5, 6, 7
"""  # noqa: S608 - made of constants

_READ: Final = f"""
    SELECT workflow, project, node, (extract(epoch FROM hour) * 1000000)::bigint, status, shard,
           sum(n), sum(duration_count), min(duration_min_us), max(duration_max_us),
           {", ".join(f"sum({name})" for name in ROLLUP_SUMS[1:])},
           runfold_concatenated(bins), runfold_concatenated(bin_counts)
    FROM (
        SELECT * FROM pending_rollups
        UNION ALL
        SELECT {", ".join((*ROLLUP_KEY, *ROLLUP_VALUES))} FROM rollups_hourly
    ) AS s
    WHERE s.hour >= %(first)s AND s.hour < %(end)s AND s.shard >= 0
      AND {_OF_SPAN.format("s", "s.hour")}
    GROUP BY workflow, project, node, hour, status, shard
"""  # noqa: S608 - made of constants


Day = tuple[int, int]
"""(shard, its start in µs)."""


def day_of(hour_us: int) -> int:
    """Return the start of the UTC day of an hour, in µs."""
    return hour_us - hour_us % DAY_US


def find_wrong_days(
    connection: psycopg.Connection, since: datetime | None = None, until: datetime | None = None
) -> list[Day]:
    """Return wrong days that have an hour with `since` ≤ hour < `until`, in order."""
    rows = connection.execute(_WRONG, {"since": since, "until": until})
    return rows.fetchall()


def correct_day(connection: psycopg.Connection, day: Day) -> None:
    """Rebuild a day, in a transaction of its own."""
    shard, start_us = day
    with lock_shard(connection, shard) as held:
        held.merge_deltas()
        rebuild_days(connection, shard, [start_us])


_COLUMNS: Final = ", ".join(
    ("workflow", "project", "day", "shard", *RUN_STATUSES, *ROLLUP_VALUES[1:-2])
)
_COUNTS_SOMETHING: Final = f"({' + '.join(RUN_STATUSES)} <> 0 OR duration_count <> 0)"
_WITHIN: Final = """
    ({0} >= date_trunc('day', %(since)s::timestamptz, 'UTC') OR %(since)s::timestamptz IS NULL)
    AND ({0} < date_trunc('day', %(until)s::timestamptz, 'UTC') + interval '1 day'
         OR %(until)s::timestamptz IS NULL)
"""
_TIMED: Final = "FILTER (WHERE duration_count > 0)"
_WRONG: Final = f"""
    WITH {sums_by_day("rollups_hourly", f"AND {_WITHIN.format('hour')}", _TIMED)}, expected AS (
        SELECT {_COLUMNS} FROM sums WHERE {_COUNTS_SOMETHING}
    ), found AS (
        SELECT {_COLUMNS} FROM rollups_daily WHERE {_COUNTS_SOMETHING} AND {_WITHIN.format("day")}
    )
    SELECT DISTINCT shard, (extract(epoch FROM day) * 1000000)::bigint AS start
    FROM (
        (TABLE expected EXCEPT TABLE found) UNION ALL (TABLE found EXCEPT TABLE expected)
    ) AS wrong
    ORDER BY 1, 2
"""  # noqa: S608 - made of constants
