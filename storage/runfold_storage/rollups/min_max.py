"""Look up the minimum and maximum of a rollup when a removed duration may have been one of them.

A sum is corrected by adding a negative delta; a minimum or maximum has to be looked up.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import psycopg

from runfold.protocol.codec import to_datetime
from runfold_storage.records.rollup import RollupDelta, RollupKey

from .store import DAY_US

# The rows of one workflow, project, hour and shard are read together, along the index of the
# workflow: LATERAL with OFFSET 0, since the planner does not know how few these are.
_EXTREMES: Final = """
    WITH gone AS MATERIALIZED (
        SELECT s.workflow, s.project, s.node, s.hour, s.status, s.shard
        FROM unnest(
            %(workflows)s::text[], %(projects)s::text[], %(nodes)s::text[],
            %(hours)s::timestamptz[], %(statuses)s::text[], %(shards)s::smallint[],
            %(least)s::bigint[], %(most)s::bigint[]
        ) AS k (workflow, project, node, hour, status, shard, least, most)
        JOIN rollups_hourly AS s
            ON s.workflow = k.workflow AND s.project = k.project AND s.node = k.node
            AND s.hour = k.hour AND s.status = k.status AND s.shard = k.shard
        WHERE (s.duration_min_us >= k.least OR s.duration_max_us <= k.most)
          -- The rows of expired hours are incomplete.
          AND NOT EXISTS (
              SELECT FROM expired_hours AS a WHERE a.project = s.project AND a.hour = s.hour
          )
    ), scopes AS MATERIALIZED (
        SELECT workflow, project, hour, shard, bool_or(node <> '') AS has_nodes
        FROM gone GROUP BY workflow, project, hour, shard
    ), of_runs AS MATERIALIZED (
        SELECT x.*, r.run, r.status, r.duration_us
        FROM scopes AS x CROSS JOIN LATERAL (
            SELECT r.run, r.status, r.duration_us FROM runs AS r
            WHERE r.workflow = x.workflow AND r.created_at >= x.hour
              AND r.created_at < x.hour + interval '1 hour'
              AND r.project = x.project AND r.shard = x.shard
            OFFSET 0
        ) AS r
    ), found AS (
        SELECT workflow, project, hour, shard, node, status,
               min(duration_us) AS least, max(duration_us) AS most
        FROM (
            SELECT workflow, project, hour, shard, '' AS node, status, duration_us FROM of_runs
            UNION ALL
            SELECT r.workflow, r.project, r.hour, r.shard, n.name, n.status, n.duration_us
            FROM of_runs AS r CROSS JOIN LATERAL (
                SELECT n.name, n.status, n.duration_us FROM nodes AS n
                WHERE n.shard = r.shard AND n.run = r.run
                OFFSET 0
            ) AS n
            WHERE r.has_nodes
        ) AS counted
        GROUP BY workflow, project, hour, shard, node, status
    )
    UPDATE rollups_hourly AS s SET duration_min_us = f.least, duration_max_us = f.most
    FROM gone AS g LEFT JOIN found AS f USING (workflow, project, hour, shard, node, status)
    WHERE s.workflow = g.workflow AND s.project = g.project AND s.node = g.node
      AND s.hour = g.hour AND s.status = g.status AND s.shard = g.shard
"""

_EXTREMES_OF_DAYS: Final = (
    """
    UPDATE rollups_daily AS d SET (duration_min_us, duration_max_us) = (
        SELECT min(s.duration_min_us), max(s.duration_max_us)
        FROM rollups_hourly AS s
        WHERE s.workflow = d.workflow AND s.project = d.project AND s.node = ''
          AND s.shard = d.shard AND s.duration_count > 0
          AND s.hour >= d.day AND s.hour < d.day + interval '1 day'
    )
    FROM (
        SELECT DISTINCT workflow, project, day, shard
        FROM unnest(
            %(workflows)s::text[], %(projects)s::text[], %(days)s::timestamptz[],
            %(shards)s::smallint[]
        ) AS k (workflow, project, day, shard)
    ) AS k
    WHERE d.workflow = k.workflow AND d.project = k.project AND d.day = k.day AND d.shard = k.shard
    """,
    """
    UPDATE rollups_daily AS d SET (duration_min_us, duration_max_us) = (
        SELECT min(s.duration_min_us), max(s.duration_max_us)
        FROM rollups_daily AS s
        WHERE s.workflow <> '' AND s.project = d.project AND s.shard = d.shard AND s.day = d.day
          AND s.duration_count > 0
    )
    FROM (
        SELECT DISTINCT project, day, shard
        FROM unnest(%(projects)s::text[], %(days)s::timestamptz[], %(shards)s::smallint[])
            AS k (project, day, shard)
    ) AS k
    WHERE d.workflow = '' AND d.project = k.project AND d.day = k.day AND d.shard = k.shard
    """,
    """
    UPDATE rollups_daily AS d SET (duration_min_us, duration_max_us) = (
        SELECT min(s.duration_min_us), max(s.duration_max_us)
        FROM rollups_daily AS s
        WHERE s.workflow = '' AND s.project <> '' AND s.shard = d.shard AND s.day = d.day
          AND s.duration_count > 0
    )
    FROM (
        SELECT DISTINCT day, shard
        FROM unnest(%(days)s::timestamptz[], %(shards)s::smallint[]) AS k (day, shard)
    ) AS k
    WHERE d.workflow = '' AND d.project = '' AND d.day = k.day AND d.shard = k.shard
    """,
)


class MinMaxRecheck(NamedTuple):
    """A rollup from which durations in this range were removed."""

    key: RollupKey
    least_us: int
    most_us: int


def removed_durations(stats: Mapping[RollupKey, RollupDelta]) -> list[MinMaxRecheck]:
    """Return the durations that these deltas remove, ordered by key."""
    found = []
    for key, difference in stats.items():
        if difference.durations:
            gone = [duration for duration, count in difference.durations.items() if count < 0]
            if gone:
                found.append(MinMaxRecheck(key, min(gone), max(gone)))
    return sorted(found)


def recheck_min_max(connection: psycopg.Connection, gone: Sequence[MinMaxRecheck]) -> None:
    """Look up minima and maxima among the rows, where a removed duration may have been one.

    This is rare, so it may scan the runs of an hour.
    """
    keys = [each.key for each in gone]
    connection.execute(
        _EXTREMES,
        {
            "workflows": [key.workflow for key in keys],
            "projects": [key.project for key in keys],
            "nodes": [key.node for key in keys],
            "hours": [to_datetime(key.hour_us) for key in keys],
            "statuses": [key.status for key in keys],
            "shards": [key.shard for key in keys],
            "least": [each.least_us for each in gone],
            "most": [each.most_us for each in gone],
        },
    )
    of_runs = [key for key in keys if not key.node]
    if of_runs:
        days = {
            "workflows": [key.workflow for key in of_runs],
            "projects": [key.project for key in of_runs],
            "days": [to_datetime(key.hour_us - key.hour_us % DAY_US) for key in of_runs],
            "shards": [key.shard for key in of_runs],
        }
        for statement in _EXTREMES_OF_DAYS:
            connection.execute(statement, days)
