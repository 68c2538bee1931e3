"""Add deltas to the stored rollups, by hour and by day.

The same statement updates hours and days. Code that changes hours in another way calls
`rebuild_days` for their shard.
"""

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Final

import psycopg
from psycopg import sql

from runfold.protocol.codec import to_datetime
from runfold_storage.postgres.bulk_write import Upsert, as_text
from runfold_storage.records.encoding import STATS_FIELDS
from runfold_storage.records.rollup import RollupKey

DAY_US: Final = 86_400_000_000

_DAYS: Final = """
    INSERT INTO rollups_daily AS days (
        workflow, project, day, shard, queued, running, completed, failed, cancelled, lost,
        duration_count, duration_min_us, duration_max_us, duration_sum_us,
        input_tokens, output_tokens, cost_nano_usd, bins, bin_counts
    )
    WITH of_runs AS (
        SELECT *, date_trunc('day', hour, 'UTC') AS day FROM {source} WHERE node = '' {condition}
    ), sums AS (
        SELECT coalesce(workflow, '') AS workflow, coalesce(project, '') AS project, day, shard,
               coalesce(sum(n) FILTER (WHERE status = 'queued'), 0) AS queued,
               coalesce(sum(n) FILTER (WHERE status = 'running'), 0) AS running,
               coalesce(sum(n) FILTER (WHERE status = 'completed'), 0) AS completed,
               coalesce(sum(n) FILTER (WHERE status = 'failed'), 0) AS failed,
               coalesce(sum(n) FILTER (WHERE status = 'cancelled'), 0) AS cancelled,
               coalesce(sum(n) FILTER (WHERE status = 'lost'), 0) AS lost,
               sum(duration_count) AS duration_count,
               min(duration_min_us) AS duration_min_us, max(duration_max_us) AS duration_max_us,
               sum(duration_sum_us) AS duration_sum_us, sum(input_tokens) AS input_tokens,
               sum(output_tokens) AS output_tokens, sum(cost_nano_usd) AS cost_nano_usd
        FROM of_runs
        GROUP BY GROUPING SETS (
            (workflow, project, day, shard), (project, day, shard), (day, shard)
        )
    ), binned AS (
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
    SELECT workflow, project, day, shard, queued, running, completed, failed, cancelled, lost,
           duration_count, duration_min_us, duration_max_us, duration_sum_us,
           input_tokens, output_tokens, cost_nano_usd,
           coalesce(bins, '{{}}'), coalesce(bin_counts, '{{}}')
    FROM sums LEFT JOIN histograms USING (workflow, project, day, shard)
    ORDER BY workflow, project, day, shard
    ON CONFLICT (workflow, project, day, shard) DO UPDATE SET
        queued = days.queued + excluded.queued,
        running = days.running + excluded.running,
        completed = days.completed + excluded.completed,
        failed = days.failed + excluded.failed,
        cancelled = days.cancelled + excluded.cancelled,
        lost = days.lost + excluded.lost,
        duration_count = days.duration_count + excluded.duration_count,
        duration_min_us = least(days.duration_min_us, excluded.duration_min_us),
        duration_max_us = greatest(days.duration_max_us, excluded.duration_max_us),
        duration_sum_us = days.duration_sum_us + excluded.duration_sum_us,
        input_tokens = days.input_tokens + excluded.input_tokens,
        output_tokens = days.output_tokens + excluded.output_tokens,
        cost_nano_usd = days.cost_nano_usd + excluded.cost_nano_usd,
        (bins, bin_counts) = (
            SELECT days.bins, days.bin_counts WHERE cardinality(excluded.bins) = 0
            UNION ALL
            SELECT added.bins, added.bin_counts
            FROM runfold_add_bins(
                days.bins, days.bin_counts, excluded.bins, excluded.bin_counts
            ) AS added
            WHERE cardinality(excluded.bins) > 0
        )
"""


# The pending deltas of some shards, deleted and summed by key. The previous holder of a cursor may
# have committed after the snapshot of this statement: then FOR UPDATE returns the cursor's new row,
# and deltas that it has merged are not merged again.
_MERGED: Final = """
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
        SELECT workflow, project, node, hour, status, shard,
               array_agg(bin) AS bins, array_agg(n) AS bin_counts
        FROM (
            SELECT workflow, project, node, hour, status, shard, bin, sum(each.n)::bigint AS n
            FROM differences, unnest(bins, bin_counts) AS each (bin, n)
            GROUP BY workflow, project, node, hour, status, shard, bin
        ) AS binned
        GROUP BY workflow, project, node, hour, status, shard
    ), summed AS (
        SELECT workflow, project, node, hour, status, shard,
               sum(n)::bigint AS n, sum(duration_count)::bigint AS duration_count,
               min(duration_min_us) AS duration_min_us, max(duration_max_us) AS duration_max_us,
               sum(duration_sum_us) AS duration_sum_us, sum(input_tokens) AS input_tokens,
               sum(output_tokens) AS output_tokens, sum(cost_nano_usd) AS cost_nano_usd
        FROM differences
        GROUP BY workflow, project, node, hour, status, shard
    ), merged AS (
        SELECT summed.*, coalesce(bins, '{}') AS bins, coalesce(bin_counts, '{}') AS bin_counts
        FROM summed LEFT JOIN histograms USING (workflow, project, node, hour, status, shard)
    )
"""


class _Rollups(Upsert):
    """Adds deltas to hours and days: those of a batch, or pending ones."""

    def _insert_from(self, source: sql.Composable) -> sql.Composed:
        return sql.SQL("WITH {}").format(self._adding(source))

    def _adding(self, source: sql.Composable) -> sql.Composed:
        came = sql.Identifier("came")
        return sql.SQL("came AS MATERIALIZED (SELECT * FROM {}), hours AS ({}) {}").format(
            source, super()._insert_from(came), sql.SQL(_DAYS.format(source="came", condition=""))
        )

    @cached_property
    def merging(self) -> bytes:
        """The statement that merges pending deltas of these shards, except locked ones."""
        adding = self._adding(sql.Identifier("merged"))
        return as_text(sql.SQL("WITH {}, {}").format(sql.SQL(_MERGED), adding))


ROLLUPS: Final = _Rollups(
    "rollups_hourly",
    STATS_FIELDS,
    STATS_FIELDS[:6],
    record="rollup_delta",
    assignments="""
        n = rollups_hourly.n + excluded.n,
        duration_count = rollups_hourly.duration_count + excluded.duration_count,
        duration_min_us = least(rollups_hourly.duration_min_us, excluded.duration_min_us),
        duration_max_us = greatest(rollups_hourly.duration_max_us, excluded.duration_max_us),
        duration_sum_us = rollups_hourly.duration_sum_us + excluded.duration_sum_us,
        input_tokens = rollups_hourly.input_tokens + excluded.input_tokens,
        output_tokens = rollups_hourly.output_tokens + excluded.output_tokens,
        cost_nano_usd = rollups_hourly.cost_nano_usd + excluded.cost_nano_usd,
        (bins, bin_counts) = (
            SELECT rollups_hourly.bins, rollups_hourly.bin_counts
            WHERE cardinality(excluded.bins) = 0
            UNION ALL
            SELECT added.bins, added.bin_counts
            FROM runfold_add_bins(
                rollups_hourly.bins, rollups_hourly.bin_counts, excluded.bins, excluded.bin_counts
            ) AS added
            WHERE cardinality(excluded.bins) > 0
        )
    """,
)


def drop_empty(connection: psycopg.Connection, keys: Collection[RollupKey]) -> None:
    """Delete those of these rollups that are empty; their shards are locked."""
    connection.execute(
        """
        DELETE FROM rollups_hourly AS s
        USING unnest(
            %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::smallint[]
        ) AS k (workflow, project, node, hour, status, shard)
        WHERE s.workflow = k.workflow AND s.project = k.project AND s.node = k.node
          AND s.hour = k.hour AND s.status = k.status AND s.shard = k.shard
          AND s.n = 0 AND s.duration_count = 0
        """,
        [
            [key.workflow for key in keys],
            [key.project for key in keys],
            [key.node for key in keys],
            [to_datetime(key.hour_us) for key in keys],
            [key.status for key in keys],
            [key.shard for key in keys],
        ],
    )
    connection.execute(
        """
        DELETE FROM rollups_daily
        WHERE shard = ANY(%s::smallint[]) AND day = ANY(%s::timestamptz[])
          AND queued + running + completed + failed + cancelled + lost = 0 AND duration_count = 0
        """,
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
    connection.execute(
        _DAYS.format(
            source="rollups_hourly",
            condition="""
                AND n <> 0 AND shard = %s
                AND date_trunc('day', hour, 'UTC') = ANY(%s::timestamptz[])
                AND hour >= %s AND hour < %s + interval '1 day'
            """,
        ),
        (*wanted, to_datetime(days[0]), to_datetime(days[-1])),
    )
