"""Find days that are not the sum of their hours, and rebuild them.

Days and hours change in one transaction (`store`), so a mismatch means that something else than
this code changed them.
"""

from datetime import datetime
from typing import Final

import psycopg

from runfold_storage.records.rollup import ROLLUP_VALUES
from runfold_storage.tables import RUN_STATUSES

from .shard_lock import lock_shard
from .store import DAY_US, rebuild_days, sums_by_day

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
