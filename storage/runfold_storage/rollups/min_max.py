"""Look up the minimum and maximum of a rollup when a removed duration may have been one of them.

A sum is corrected by adding a negative delta; a minimum or maximum has to be looked up.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import psycopg

from runfold_storage.records.rollup import RollupDelta, RollupKey

from .store import SAME_KEY, key_columns, unnested_keys

# The rows of one workflow, project, hour and shard are read together, along the index of the
# workflow: LATERAL with OFFSET 0, since the planner does not know how few these are.
_EXTREMES: Final = f"""
    WITH gone AS MATERIALIZED (
        SELECT s.workflow, s.project, s.node, s.hour, s.status, s.shard
        FROM {unnested_keys(least="bigint", most="bigint")} JOIN rollups_hourly AS s ON {SAME_KEY}
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
    FROM gone AS k LEFT JOIN found AS f USING (workflow, project, hour, shard, node, status)
    WHERE {SAME_KEY}
"""  # noqa: S608 - made of constants


def _extremes_of_days(workflow: str, project: str, source: str, parts: str) -> str:
    """Return the statement for rows of `rollups_daily`, from rollups that are `parts` of a row."""
    return f"""
        UPDATE rollups_daily AS d SET (duration_min_us, duration_max_us) = (
            SELECT min(s.duration_min_us), max(s.duration_max_us) FROM {source} AS s
            WHERE {parts} AND s.shard = d.shard AND s.duration_count > 0
        )
        FROM (
            SELECT DISTINCT {workflow} AS workflow, {project} AS project,
                   date_trunc('day', k.hour, 'UTC') AS day, k.shard
            FROM {unnested_keys()}
        ) AS k
        WHERE d.workflow = k.workflow AND d.project = k.project AND d.day = k.day
          AND d.shard = k.shard
    """  # noqa: S608 - made of constants


_EXTREMES_OF_DAYS: Final = (
    _extremes_of_days(
        *("k.workflow", "k.project", "rollups_hourly"),
        "s.workflow = d.workflow AND s.project = d.project AND s.node = ''"
        " AND s.hour >= d.day AND s.hour < d.day + interval '1 day'",
    ),
    _extremes_of_days(
        *("''", "k.project", "rollups_daily"),
        "s.workflow <> '' AND s.project = d.project AND s.day = d.day",
    ),
    _extremes_of_days(
        *("''", "''", "rollups_daily"), "s.workflow = '' AND s.project <> '' AND s.day = d.day"
    ),
)
"""Workflows, then projects, then everything."""


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
    """Look up minima and maxima, among the runs of an hour, that a removal may have changed."""
    keys = [each.key for each in gone]
    bounds = [each.least_us for each in gone], [each.most_us for each in gone]
    connection.execute(_EXTREMES, [*key_columns(keys), *bounds])
    of_runs = [key for key in keys if not key.node]
    if of_runs:
        for statement in _EXTREMES_OF_DAYS:
            connection.execute(statement, key_columns(of_runs))
