"""Add deltas to the stored rollups, by hour and by day in one statement: at once, or pending.

For a small batch, a row of a rollup costs as much as a row of a run, and the next batch changes the
same rollups again. So small batches append their deltas, one row per shard, and a worker merges
half a second's worth at once. Readers add the view `pending_rollups` in the same snapshot.

`rollup_delta_cursors` says up to which delta a shard is merged, so that no reader scans deleted
rows, which an old snapshot may keep for long. Merging locks the shard's cursor, which no appending
batch waits for.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Any, Final

import psycopg
from psycopg import sql

from runfold.protocol.codec import to_datetime
from runfold_storage.postgres.bulk_write import Upsert, as_text
from runfold_storage.records.rollup import (
    ROLLUP_KEY,
    ROLLUP_SUMS,
    ROLLUP_VALUES,
    RollupKey,
    RollupScope,
)
from runfold_storage.tables import RUN_STATUSES

DAY_US: Final = 86_400_000_000

_KEY: Final = ", ".join(ROLLUP_KEY)
SAME_KEY: Final = " AND ".join(f"s.{name} = k.{name}" for name in ROLLUP_KEY)
"""Whether a rollup `s` has the key `k` (`unnested_keys`)."""


def unnested_keys(**more: str) -> str:
    """Return SQL for a table `k` of keys, with `more` columns of these types: see `key_columns`."""
    types = dict.fromkeys(ROLLUP_KEY, "text") | {"hour": "timestamptz", "shard": "smallint"} | more
    arrays = ", ".join(f"%s::{kind}[]" for kind in types.values())
    return f"unnest({arrays}) AS k ({', '.join(types)})"


def key_columns(keys: Collection[RollupKey]) -> list[list[Any]]:
    """Return the parameters of `unnested_keys`."""
    columns = [list(column) for column in zip(*keys, strict=True)] or [[] for _ in ROLLUP_KEY]
    columns[3] = [to_datetime(hour_us) for hour_us in columns[3]]
    return columns


def _added(row: str, counts: Iterable[str]) -> str:
    """Return the assignments that add `excluded`, a delta, to a row."""
    return f"""
        {", ".join(f"{name} = {row}.{name} + excluded.{name}" for name in (*counts, *ROLLUP_SUMS))},
        duration_min_us = least({row}.duration_min_us, excluded.duration_min_us),
        duration_max_us = greatest({row}.duration_max_us, excluded.duration_max_us),
        (bins, bin_counts) = (
            SELECT {row}.bins, {row}.bin_counts WHERE cardinality(excluded.bins) = 0
            UNION ALL
            SELECT added.bins, added.bin_counts
            FROM runfold_add_bins(
                {row}.bins, {row}.bin_counts, excluded.bins, excluded.bin_counts
            ) AS added
            WHERE cardinality(excluded.bins) > 0
        )
    """  # noqa: S608 - made of constants


def sums_by_day(source: str, condition: str = "", timed: str = "") -> str:
    """Return two CTEs, `of_runs` and its `sums` by day; `timed` filters minima and maxima."""
    of_status = ", ".join(
        f"coalesce(sum(n) FILTER (WHERE status = '{status}'), 0) AS {status}"
        for status in RUN_STATUSES
    )
    return f"""
        of_runs AS (
            SELECT *, date_trunc('day', hour, 'UTC') AS day FROM {source}
            WHERE node = '' {condition}
        ), sums AS (
            SELECT coalesce(workflow, '') AS workflow, coalesce(project, '') AS project, day, shard,
                   {of_status}, {", ".join(f"sum({name}) AS {name}" for name in ROLLUP_SUMS)},
                   min(duration_min_us) {timed} AS duration_min_us,
                   max(duration_max_us) {timed} AS duration_max_us
            FROM of_runs
            GROUP BY GROUPING SETS (
                (workflow, project, day, shard), (project, day, shard), (day, shard)
            )
        )
    """  # noqa: S608 - made of constants


def _add_to_days(source: str, condition: str = "") -> str:
    columns = ", ".join((*RUN_STATUSES, *ROLLUP_VALUES[1:-2]))
    return f"""
        INSERT INTO rollups_daily AS days (
            workflow, project, day, shard, {columns}, bins, bin_counts
        )
        WITH {sums_by_day(source, condition)}, binned AS (
            SELECT coalesce(workflow, '') AS workflow, coalesce(project, '') AS project, day, shard,
                   bin, sum(each.n) AS n
            FROM of_runs, unnest(bins, bin_counts) AS each (bin, n)
            GROUP BY GROUPING SETS (
                (workflow, project, day, shard, bin), (project, day, shard, bin), (day, shard, bin)
            )
        ), histograms AS (
            SELECT workflow, project, day, shard, array_agg(bin) AS bins, array_agg(n) AS bin_counts
            FROM binned WHERE n <> 0
            GROUP BY workflow, project, day, shard
        )
        SELECT workflow, project, day, shard, {columns},
               coalesce(bins, '{{}}'), coalesce(bin_counts, '{{}}')
        FROM sums LEFT JOIN histograms USING (workflow, project, day, shard)
        ORDER BY workflow, project, day, shard
        ON CONFLICT (workflow, project, day, shard) DO UPDATE SET {_added("days", RUN_STATUSES)}
    """  # noqa: S608 - made of constants


# The pending deltas of some shards, deleted and summed by key. The previous holder of a cursor may
# have committed after the snapshot of this statement: then FOR UPDATE returns the cursor's new row,
# and deltas that it has merged are not merged again.
_MERGED: Final = f"""
    held AS MATERIALIZED (
        SELECT shard, id FROM rollup_delta_cursors WHERE shard = ANY(%b::smallint[])
        ORDER BY shard FOR UPDATE SKIP LOCKED
    ), taken AS (
        DELETE FROM rollup_deltas AS s USING held AS m
        WHERE s.shard = m.shard AND s.id > m.id
        RETURNING s.shard, s.id, s.deltas
    ), marked AS (
        UPDATE rollup_delta_cursors AS m SET id = newest.id
        FROM (SELECT shard, max(id) AS id FROM taken GROUP BY shard) AS newest
        WHERE m.shard = newest.shard
    ), differences AS MATERIALIZED (
        SELECT d.* FROM taken, unnest(taken.deltas) AS d
    ), histograms AS (
        SELECT {_KEY}, array_agg(bin) AS bins, array_agg(n) AS bin_counts
        FROM (
            SELECT {_KEY}, bin, sum(each.n)::bigint AS n
            FROM differences, unnest(bins, bin_counts) AS each (bin, n)
            GROUP BY {_KEY}, bin
        ) AS binned
        GROUP BY {_KEY}
    ), summed AS (
        SELECT {_KEY}, sum(n)::bigint AS n, sum(duration_count)::bigint AS duration_count,
               min(duration_min_us) AS duration_min_us, max(duration_max_us) AS duration_max_us,
               {", ".join(f"sum({name}) AS {name}" for name in ROLLUP_SUMS[1:])}
        FROM differences
        GROUP BY {_KEY}
    ), merged AS (
        SELECT summed.*, coalesce(bins, '{{}}') AS bins, coalesce(bin_counts, '{{}}') AS bin_counts
        FROM summed LEFT JOIN histograms USING ({_KEY})
    )
"""  # noqa: S608 - made of constants


class _Rollups(Upsert):
    """Adds deltas to hours and days: those of a batch, or pending ones."""

    def _insert_from(self, source: sql.Composable) -> sql.Composed:
        return sql.SQL("WITH {}").format(self._adding(source))

    def _adding(self, source: sql.Composable) -> sql.Composed:
        came = sql.Identifier("came")
        return sql.SQL("came AS MATERIALIZED (SELECT * FROM {}), hours AS ({}) {}").format(
            source, super()._insert_from(came), sql.SQL(_add_to_days("came"))
        )

    @cached_property
    def merging(self) -> bytes:
        """The statement that merges pending deltas of these shards, except locked ones."""
        adding = self._adding(sql.Identifier("merged"))
        return as_text(sql.SQL("WITH {}, {}").format(sql.SQL(_MERGED), adding))


ROLLUPS: Final = _Rollups(
    "rollups_hourly",
    (*ROLLUP_KEY, *ROLLUP_VALUES),
    ROLLUP_KEY,
    record="rollup_delta",
    assignments=_added("rollups_hourly", ["n"]),
)


def shards_with_pending_deltas(connection: psycopg.Connection) -> list[int]:
    """Return the shards that have pending deltas."""
    return [shard for (shard,) in connection.execute(_WAITING)]


def merge_deltas(connection: psycopg.Connection, shard: int) -> None:
    """Merge the pending deltas of a shard in a transaction of its own, unless it is locked."""
    connection.execute(ROLLUPS.merging, ([shard],))


def merge_overlapping(connection: psycopg.Connection, scopes: Sequence[RollupScope]) -> None:
    """Merge the pending deltas of the shards in which some are of these scopes.

    Like `merge_shards`, it locks the cursors of all their shards, so nothing is merged meanwhile.
    """
    workflows, projects, hours_us, shards = zip(*scopes, strict=True)
    connection.execute(_HOLD, (sorted(set(shards)),))
    columns = [workflows, projects, map(to_datetime, hours_us), shards]
    overlapping = connection.execute(_OVERLAPPING, [list(column) for column in columns]).fetchall()
    if overlapping:
        connection.execute(ROLLUPS.merging, ([shard for (shard,) in overlapping],))


def merge_shards(connection: psycopg.Connection, shards: Sequence[int]) -> None:
    """Merge the pending deltas of these shards in the open transaction, and lock their cursors."""
    connection.execute(_HOLD, (shards,))
    # A separate statement, so that it sees what the previous holder of the lock committed.
    waiting = connection.execute(_WAITING_OF, (shards,)).fetchall()
    if waiting:
        connection.execute(ROLLUPS.merging, ([shard for (shard,) in waiting],))


INSERT_DELTAS: Final = """
    INSERT INTO rollup_deltas (shard, deltas)
    SELECT d.shard, array_agg(d) FROM unnest(%b::rollup_delta[]) AS d GROUP BY d.shard
"""
_HOLD: Final = """
    SELECT shard FROM rollup_delta_cursors WHERE shard = ANY(%s::smallint[])
    ORDER BY shard FOR UPDATE
"""
_WAITING: Final = """
    SELECT shard FROM rollup_delta_cursors AS m
    WHERE EXISTS (SELECT FROM rollup_deltas AS s WHERE s.shard = m.shard AND s.id > m.id)
"""
_WAITING_OF: Final = f"{_WAITING} AND shard = ANY(%s::smallint[])"
_OVERLAPPING: Final = """
    WITH scopes AS MATERIALIZED (
        SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::smallint[])
        AS k (workflow, project, hour, shard)
    )
    SELECT m.shard FROM rollup_delta_cursors AS m
    WHERE m.shard IN (SELECT shard FROM scopes) AND EXISTS (
        SELECT FROM rollup_deltas AS s, unnest(s.deltas) AS d
        WHERE s.shard = m.shard AND s.id > m.id
          AND (d.workflow, d.project, d.hour, d.shard) IN (
              SELECT workflow, project, hour, shard FROM scopes
          )
    )
    ORDER BY m.shard
"""


def drop_empty(connection: psycopg.Connection, keys: Collection[RollupKey]) -> None:
    """Delete those of these rollups that are empty; their shards are locked."""
    connection.execute(
        f"""
        DELETE FROM rollups_hourly AS s USING {unnested_keys()}
        WHERE {SAME_KEY} AND s.n = 0 AND s.duration_count = 0
        """,  # noqa: S608 - made of constants
        key_columns(keys),
    )
    connection.execute(
        f"""
        DELETE FROM rollups_daily
        WHERE shard = ANY(%s::smallint[]) AND day = ANY(%s::timestamptz[])
          AND {" + ".join(RUN_STATUSES)} = 0 AND duration_count = 0
        """,  # noqa: S608 - made of constants
        (
            sorted({key.shard for key in keys}),
            sorted({to_datetime(key.hour_us - key.hour_us % DAY_US) for key in keys}),
        ),
    )


def rebuild_days(connection: psycopg.Connection, shard: int, hours_us: Iterable[int]) -> None:
    """Rebuild the days of these hours, which the holder of the shard's lock changed."""
    days = sorted({hour_us - hour_us % DAY_US for hour_us in hours_us})
    if not days:
        return
    wanted = (shard, [to_datetime(day) for day in days])
    connection.execute(
        "DELETE FROM rollups_daily WHERE shard = %s AND day = ANY(%s::timestamptz[])", wanted
    )
    condition = """
        AND n <> 0 AND shard = %s AND date_trunc('day', hour, 'UTC') = ANY(%s::timestamptz[])
        AND hour >= %s AND hour < %s + interval '1 day'
    """
    connection.execute(
        _add_to_days("rollups_hourly", condition),
        (*wanted, to_datetime(days[0]), to_datetime(days[-1])),
    )
