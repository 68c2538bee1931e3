"""Look up the minimum and maximum of a rollup when a removed duration may have been one of them.

A sum is corrected by adding a negative delta; a minimum or maximum has to be looked up among all
runs of a workflow's hour. Durations often repeat, so a look-up also finds a run that has the
minimum and one that has the maximum: as long as those are there, neither has changed.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from runfold.protocol.codec import to_us
from runfold_storage.records.rollup import ROLLUP_KEY, RollupDelta, RollupKey

from .store import SAME_KEY, key_columns, unnested_keys


def _has(run: str, duration_us: str) -> str:
    """Return SQL: whether this run counts in the rollup `r` with this duration, or a node of it."""
    return f"""
        EXISTS (
            SELECT FROM runs AS w
            LEFT JOIN nodes AS n
              ON r.node <> '' AND n.shard = w.shard AND n.run = w.run AND n.name = r.node
            WHERE w.shard = r.shard AND w.run = {run}
              AND w.workflow = r.workflow AND w.project = r.project
              AND w.created_at >= r.hour AND w.created_at < r.hour + interval '1 hour'
              AND CASE WHEN r.node = '' THEN w.status ELSE n.status END = r.status
              AND CASE WHEN r.node = '' THEN w.duration_us ELSE n.duration_us END = {duration_us}
        )
    """


# The rows of one workflow, project, hour and shard are read together, along the index of the
# workflow: LATERAL with OFFSET 0, since the planner does not know how few these are. Of runs with
# the same duration, the oldest is found, since deletions go from the newest to the oldest.
_EXTREMES: Final = f"""
    WITH removed AS MATERIALIZED (
        SELECT s.workflow, s.project, s.node, s.hour, s.status, s.shard,
               s.duration_min_us, s.duration_max_us, k.least_run, k.most_run
        FROM {unnested_keys(least="bigint", most="bigint", least_run="uuid", most_run="uuid")}
        JOIN rollups_hourly AS s ON {SAME_KEY}
        WHERE (s.duration_min_us >= k.least OR s.duration_max_us <= k.most)
          -- The rows of expired hours are incomplete.
          AND NOT EXISTS (
              SELECT FROM expired_hours AS a WHERE a.project = s.project AND a.hour = s.hour
          )
    ), gone AS MATERIALIZED (
        SELECT * FROM removed AS r
        WHERE NOT ({_has("r.least_run", "r.duration_min_us")})
           OR NOT ({_has("r.most_run", "r.duration_max_us")})
    ), scopes AS MATERIALIZED (
        SELECT workflow, project, hour, shard, bool_or(node <> '') AS has_nodes,
               row_number() OVER () AS scope
        FROM gone GROUP BY workflow, project, hour, shard
    ), of_runs AS MATERIALIZED (
        SELECT x.scope, x.has_nodes, r.*, row_number() OVER () AS number
        FROM scopes AS x CROSS JOIN LATERAL (
            SELECT r.shard, r.run, r.status, r.duration_us FROM runs AS r
            WHERE r.workflow = x.workflow AND r.created_at >= x.hour
              AND r.created_at < x.hour + interval '1 hour'
              AND r.project = x.project AND r.shard = x.shard
            ORDER BY r.created_at OFFSET 0
        ) AS r
    ), found AS MATERIALIZED (
        SELECT scope, node, status,
               min(ARRAY[duration_us, number]) AS least, max(ARRAY[duration_us, -number]) AS most
        FROM (
            SELECT scope, '' AS node, status, duration_us, number FROM of_runs
            UNION ALL
            SELECT r.scope, n.name, n.status, n.duration_us, r.number
            FROM of_runs AS r CROSS JOIN LATERAL (
                SELECT n.name, n.status, n.duration_us FROM nodes AS n
                WHERE n.shard = r.shard AND n.run = r.run
                OFFSET 0
            ) AS n
            WHERE r.has_nodes
        ) AS counted
        WHERE duration_us IS NOT NULL
        GROUP BY scope, node, status
    )
    UPDATE rollups_hourly AS s SET duration_min_us = f.least[1], duration_max_us = f.most[1]
    FROM gone AS k
    JOIN scopes USING (workflow, project, hour, shard)
    LEFT JOIN found AS f USING (scope, node, status)
    LEFT JOIN of_runs AS shortest ON shortest.number = f.least[2]
    LEFT JOIN of_runs AS longest ON longest.number = -f.most[2]
    WHERE {SAME_KEY}
    RETURNING {", ".join(f"k.{name}" for name in ROLLUP_KEY)}, shortest.run, longest.run,
              (k.duration_min_us, k.duration_max_us) IS DISTINCT FROM (f.least[1], f.most[1])
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


class MinMaxCache:
    """Of rollups that were looked up, a run that has the minimum and one that has the maximum."""

    MOST: Final = 10_000
    """Rollups, some 500 bytes each; beyond that it starts over."""

    def __init__(self) -> None:
        self._runs: dict[RollupKey, tuple[UUID | None, UUID | None]] = {}

    def runs(self, keys: Sequence[RollupKey]) -> tuple[list[UUID | None], list[UUID | None]]:
        """Return the runs that have the minima, and those that have the maxima; None if unknown."""
        found = [self._runs.get(key, (None, None)) for key in keys]
        return [least for least, _ in found], [most for _, most in found]

    def add(self, key: RollupKey, least: UUID | None, most: UUID | None) -> None:
        """Remember these runs of a rollup."""
        if len(self._runs) >= self.MOST:
            self._runs.clear()
        self._runs[key] = least, most


def removed_durations(stats: Mapping[RollupKey, RollupDelta]) -> list[MinMaxRecheck]:
    """Return the durations that these deltas remove, ordered by key."""
    found = []
    for key, difference in stats.items():
        if difference.durations:
            gone = [duration for duration, count in difference.durations.items() if count < 0]
            if gone:
                found.append(MinMaxRecheck(key, min(gone), max(gone)))
    return sorted(found)


def recheck_min_max(
    connection: psycopg.Connection, gone: Sequence[MinMaxRecheck], cache: MinMaxCache
) -> None:
    """Look up minima and maxima, among the runs of an hour, that a removal may have changed."""
    keys = [each.key for each in gone]
    bounds = [each.least_us for each in gone], [each.most_us for each in gone]
    changed = []
    for workflow, project, node, hour, status, shard, *runs, is_changed in connection.execute(
        _EXTREMES, [*key_columns(keys), *bounds, *cache.runs(keys)]
    ):
        found = RollupKey(workflow, project, node, to_us(hour), status, shard)
        cache.add(found, *runs)
        if is_changed and not node:
            changed.append(found)
    if changed:
        for statement in _EXTREMES_OF_DAYS:
            connection.execute(statement, key_columns(changed))
