"""Find days that are not the sum of their hours, and rebuild them.

Days and hours change in one transaction (`store`), so a mismatch means that something else than
this code changed them.
"""

from datetime import datetime
from typing import Final

import psycopg

from .shard_lock import lock_shard
from .store import DAY_US, rebuild_days

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
    with connection.transaction():
        if lock_shard(connection, shard) is not None:
            rebuild_days(connection, shard, [start_us])


_COUNTS: Final = ("queued", "running", "completed", "failed", "cancelled", "lost")
_SUMS: Final = (
    "duration_count",
    "duration_sum_us",
    "input_tokens",
    "output_tokens",
    "cost_nano_usd",
)
_COLUMNS: Final = ", ".join((*_COUNTS, *_SUMS, "duration_min_us", "duration_max_us"))
_COUNTS_SOMETHING: Final = f"{' + '.join(_COUNTS)} <> 0 OR duration_count <> 0"
_WITHIN: Final = """
    ({0} >= date_trunc('day', %(since)s::timestamptz, 'UTC') OR %(since)s::timestamptz IS NULL)
    AND ({0} < date_trunc('day', %(until)s::timestamptz, 'UTC') + interval '1 day'
         OR %(until)s::timestamptz IS NULL)
"""
_WRONG: Final = f"""
    WITH of_runs AS (
        SELECT *, date_trunc('day', hour, 'UTC') AS day FROM rollups_hourly
        WHERE node = '' AND {_WITHIN.format("hour")}
    ), sums AS (
        SELECT coalesce(workflow, '') AS workflow, coalesce(project, '') AS project, day, shard,
               {
    ", ".join(
        f"coalesce(sum(n) FILTER (WHERE status = '{status}'), 0) AS {status}" for status in _COUNTS
    )
},
               {", ".join(f"sum({name}) AS {name}" for name in _SUMS)},
               min(duration_min_us) FILTER (WHERE duration_count > 0) AS duration_min_us,
               max(duration_max_us) FILTER (WHERE duration_count > 0) AS duration_max_us
        FROM of_runs
        GROUP BY GROUPING SETS (
            (workflow, project, day, shard), (project, day, shard), (day, shard)
        )
    ), expected AS (
        SELECT workflow, project, day, shard, {_COLUMNS} FROM sums WHERE {_COUNTS_SOMETHING}
    ), found AS (
        SELECT workflow, project, day, shard, {_COLUMNS} FROM rollups_daily
        WHERE ({_COUNTS_SOMETHING}) AND {_WITHIN.format("day")}
    )
    SELECT DISTINCT shard, (extract(epoch FROM day) * 1000000)::bigint AS start
    FROM (
        (TABLE expected EXCEPT TABLE found) UNION ALL (TABLE found EXCEPT TABLE expected)
    ) AS wrong
    ORDER BY 1, 2
"""  # noqa: S608 - made of constants
