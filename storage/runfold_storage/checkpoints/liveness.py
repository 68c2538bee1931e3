"""Liveness: find silent runs by what the fold has read, not by clocks.

A *liveness mark* records how far a shard's changes (`change_seq`) had come at a moment when its
whole stream was folded, and for how long workers had listened until then. Any sign of life of a run
changes its row, which gives the row a new number. So a run whose `change_seq` is not above that of
a mark has been silent since the mark.

Time during which no worker could have read a sign of life does not count: without workers, during a
backlog, or while a server is away. So an outage makes no run lost. Runners' clocks do not matter,
nor do events that are sent long after their time.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import psycopg

from .liveness_limits import Limits

_MAX_SILENT: Final = 10_000
"""The most runs that one call finds; later calls find the others."""
_MOST_GAP_TICKS: Final = 3
_EVERY_PROJECT: Final = ""


class SilentRun(NamedTuple):
    """A run that should be lost, with its last sign of life by its own clock."""

    shard: int
    run_id: str
    last_event_us: int
    limit_s: float


def save_liveness_mark(
    connection: psycopg.Connection, shards: Iterable[int], limits: Limits
) -> None:
    """Record that these shards were folded up to where their streams ended a moment ago."""
    tick_s = limits.tick_s
    assert tick_s is not None
    seconds = [*limits.running.seconds, *limits.queued.seconds]
    # Monitors check once a second, so a tick can be late by that much.
    most_gap_s = _MOST_GAP_TICKS * tick_s + 3
    parameters = {
        "shards": list(shards),
        "most_gap_us": round(most_gap_s * 1e6),
        "kept_us": round((max(seconds) + 2 * most_gap_s) * 1e6),
    }
    connection.execute(_SAVE_MARKS, parameters)
    connection.execute(_DELETE_OLD_MARKS, parameters)


def find_silent(connection: psycopg.Connection, limits: Limits) -> list[SilentRun]:
    """Return the open runs that were silent for longer than their limit."""
    rows = [
        (status, project, round(seconds * 1e6))
        for status, limit in (("running", limits.running), ("queued", limits.queued))
        for project, seconds in ((_EVERY_PROJECT, limit.default_s), *limit.by_project.items())
    ]
    statuses, projects, limits_us = map(list, zip(*rows, strict=True))
    parameters = {"statuses": statuses, "projects": projects, "limits_us": limits_us}
    found = connection.execute(_SILENT, {**parameters, "most": _MAX_SILENT})
    return [
        SilentRun(shard, external_id or str(run), last_event_us, limit_us / 1e6)
        for shard, run, external_id, last_event_us, limit_us in found
    ]


# Between two marks that are far apart no worker listened. A clock that goes back adds nothing.
_SAVE_MARKS: Final = """
    INSERT INTO liveness_marks AS was (listened_us, change_seq, marked_at, shard)
    SELECT coalesce(last.listened_us, 0)
               + CASE WHEN gap.us BETWEEN 0 AND %(most_gap_us)s THEN gap.us ELSE 0 END,
           p.change_seq, now(), p.shard
    FROM positions AS p
    LEFT JOIN LATERAL (
        SELECT listened_us, marked_at FROM liveness_marks
        WHERE shard = p.shard ORDER BY listened_us DESC LIMIT 1
    ) AS last ON true
    CROSS JOIN LATERAL (
        SELECT (extract(epoch FROM now() - last.marked_at) * 1000000)::bigint
    ) AS gap (us)
    WHERE p.shard = ANY(%(shards)s::smallint[])
    ON CONFLICT (shard, listened_us) DO UPDATE
    SET change_seq = excluded.change_seq, marked_at = excluded.marked_at
"""

_DELETE_OLD_MARKS: Final = """
    DELETE FROM liveness_marks AS p
    USING (SELECT shard, max(listened_us) AS listened_us FROM liveness_marks GROUP BY shard) AS last
    WHERE p.shard = last.shard AND p.shard = ANY(%(shards)s::smallint[])
      AND p.listened_us < last.listened_us - %(kept_us)s
"""

# `bounds`: for each shard and limit, the shard's `change_seq` as of `limit_us` of listening ago;
# NULL if it is not known yet, or there is no limit. No index names `status`, which changes; the
# rollups show in which hours open runs began. Runs that are younger than any limit are skipped, and
# with them the busiest hours. Runs whose payloads have expired are skipped, as the fold accepts no
# events of them.
_SILENT: Final = """
    WITH bounds AS MATERIALIZED (
        SELECT now_.shard, l.status, l.project, l.limit_us,
               CASE WHEN l.limit_us > 0 THEN (
                   SELECT p.change_seq FROM liveness_marks AS p
                   WHERE p.shard = now_.shard AND p.listened_us <= now_.listened_us - l.limit_us
                   ORDER BY p.listened_us DESC LIMIT 1
               ) END AS change_seq
        FROM (
            SELECT shard, max(listened_us) AS listened_us FROM liveness_marks GROUP BY shard
        ) AS now_
        CROSS JOIN unnest(%(statuses)s::text[], %(projects)s::text[], %(limits_us)s::bigint[])
            AS l (status, project, limit_us)
    ), youngest AS (
        SELECT status, now() - min(limit_us) * interval '1 microsecond' AS created_at
        FROM bounds WHERE change_seq IS NOT NULL GROUP BY status
    ), hours AS MATERIALIZED (
        SELECT s.hour, max(y.created_at) AS created_before
        FROM rollups_hourly AS s
        JOIN youngest AS y ON y.status = s.status AND s.hour <= y.created_at
        WHERE s.node = '' AND s.n > 0
        GROUP BY s.hour
    )
    SELECT r.shard, r.run, r.external_id,
           (extract(epoch FROM r.last_event_at) * 1000000)::bigint, b.limit_us
    FROM hours AS h
    CROSS JOIN LATERAL (
        SELECT shard, run, external_id, last_event_at, status, project, change_seq FROM runs
        WHERE created_at >= h.hour AND created_at < h.hour + interval '1 hour'
          AND created_at <= h.created_before AND status IN ('queued', 'running')
          AND payloads_expired_at IS NULL
        OFFSET 0
    ) AS r
    CROSS JOIN LATERAL (
        SELECT limit_us, change_seq FROM bounds
        WHERE shard = r.shard AND status = r.status AND project IN (r.project, '')
        ORDER BY project DESC LIMIT 1
    ) AS b
    WHERE r.change_seq <= b.change_seq
    LIMIT %(most)s
"""
