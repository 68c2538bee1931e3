"""Runs that nothing is heard of, told by what the fold has heard and not by clocks.

A *pulse* says how far a shard's changes (`feed_seq`) had come at a moment when all that its stream
had was folded, and for how long somebody had listened until then. Any sign of life of a run
changes its row, which gives it a new number. So a run whose number a pulse had reached has been
silent since.

Time in which nobody could have heard it does not count: no worker, a backlog, a server away. So an
outage makes no run lost. Nor do the clocks of runners matter, or times of long ago told today.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from .liveness_limits import Limits

_MAX_SILENT: Final = 10_000
"""Runs that one look finds; the next one finds the others."""
_MOST_GAP_TICKS: Final = 3
_EVERY_PROJECT: Final = ""


class SilentRun(NamedTuple):
    """A run that should be lost: when it last gave a sign of life by its own clock."""

    shard: int
    run_id: str
    seen_us: int
    limit_s: float


def save_liveness_mark(
    connection: psycopg.Connection, shards: Iterable[int], limits: Limits
) -> None:
    """Everything that the streams of these shards had a moment ago is folded."""
    tick_s = limits.tick_s
    assert tick_s is not None
    seconds = [*limits.running.seconds, *limits.queued.seconds]
    # Watches look once a second, so that a tick can be that much late.
    most_gap_s = _MOST_GAP_TICKS * tick_s + 3
    parameters = {
        "shards": list(shards),
        "most_gap_us": round(most_gap_s * 1e6),
        "kept_us": round((max(seconds) + 2 * most_gap_s) * 1e6),
    }
    connection.execute(_TAKE_PULSE, parameters)
    connection.execute(_FORGET_PULSES, parameters)


def find_silent(connection: psycopg.Connection, limits: Limits) -> list[SilentRun]:
    """The open runs that nothing was heard of for longer than their limit."""
    parameters = _limit_columns(limits)
    bounds = connection.execute(_BOUNDS, parameters).fetchall()
    if all(feed_seq is None for *_, feed_seq in bounds):
        return []
    columns: Sequence[list[object]] = [list(column) for column in zip(*bounds, strict=True)]
    found = connection.execute(
        _SILENT,
        parameters
        | {
            "shards": columns[0],
            "of_status": columns[1],
            "of_project": columns[2],
            "of_limit_us": columns[3],
            "feed_seqs": columns[4],
            "most": _MAX_SILENT,
        },
    )
    return [
        SilentRun(shard, given_id or str(UUID(bytes=run.bytes)), seen_us, limit_us / 1e6)
        for shard, run, given_id, seen_us, limit_us in found
    ]


def _limit_columns(limits: Limits) -> dict[str, list[object]]:
    rows = [
        (status, project, round(seconds * 1e6))
        for status, limit in (("running", limits.running), ("queued", limits.queued))
        for project, seconds in ((_EVERY_PROJECT, limit.default_s), *limit.by_project.items())
    ]
    statuses, projects, limits_us = (list[object](column) for column in zip(*rows, strict=True))
    return {"statuses": statuses, "projects": projects, "limits_us": limits_us}


# Two pulses far apart: in between nobody listened. Time that goes backwards stands still.
_TAKE_PULSE: Final = """
    INSERT INTO pulses AS was (heard_us, feed_seq, at, shard)
    SELECT coalesce(last.heard_us, 0)
               + CASE WHEN gap.us BETWEEN 0 AND %(most_gap_us)s THEN gap.us ELSE 0 END,
           p.feed_seq, now(), p.shard
    FROM positions AS p
    LEFT JOIN LATERAL (
        SELECT heard_us, at FROM pulses WHERE shard = p.shard ORDER BY heard_us DESC LIMIT 1
    ) AS last ON true
    CROSS JOIN LATERAL (
        SELECT (extract(epoch FROM now() - last.at) * 1000000)::bigint
    ) AS gap (us)
    WHERE p.shard = ANY(%(shards)s::smallint[])
    ON CONFLICT (shard, heard_us) DO UPDATE SET feed_seq = excluded.feed_seq, at = excluded.at
"""

_FORGET_PULSES: Final = """
    DELETE FROM pulses AS p
    USING (SELECT shard, max(heard_us) AS heard_us FROM pulses GROUP BY shard) AS last
    WHERE p.shard = last.shard AND p.shard = ANY(%(shards)s::smallint[])
      AND p.heard_us < last.heard_us - %(kept_us)s
"""

# For each shard and limit, the number that changes had reached so long ago; NULL: not yet, never.
_BOUNDS: Final = """
    SELECT now_.shard, l.status, l.project, l.limit_us,
           CASE WHEN l.limit_us > 0 THEN (
               SELECT p.feed_seq FROM pulses AS p
               WHERE p.shard = now_.shard AND p.heard_us <= now_.heard_us - l.limit_us
               ORDER BY p.heard_us DESC LIMIT 1
           ) END
    FROM (SELECT shard, max(heard_us) AS heard_us FROM pulses GROUP BY shard) AS now_
    CROSS JOIN unnest(%(statuses)s::text[], %(projects)s::text[], %(limits_us)s::bigint[])
        AS l (status, project, limit_us)
"""

# No index names `status`, for it changes: the rollups tell in which hours runs began that are open.
# Runs that are younger than any limit are not looked at, which spares the hours with the most. Of
# runs that retention has aged, the fold takes nothing any more.
_SILENT: Final = """
    WITH bounds AS MATERIALIZED (
        SELECT * FROM unnest(
            %(shards)s::smallint[], %(of_status)s::text[], %(of_project)s::text[],
            %(of_limit_us)s::bigint[], %(feed_seqs)s::bigint[]
        ) AS b (shard, status, project, limit_us, feed_seq)
    ), youngest AS (
        SELECT status, now() - min(limit_us) * interval '1 microsecond' AS created_at
        FROM bounds WHERE feed_seq IS NOT NULL GROUP BY status
    ), hours AS MATERIALIZED (
        SELECT s.hour, max(y.created_at) AS created_before
        FROM stats AS s JOIN youngest AS y ON y.status = s.status AND s.hour <= y.created_at
        WHERE s.node = '' AND s.n > 0
        GROUP BY s.hour
    )
    SELECT r.shard, r.run, r.given_id,
           (extract(epoch FROM r.seen_at) * 1000000)::bigint, b.limit_us
    FROM hours AS h
    CROSS JOIN LATERAL (
        SELECT shard, run, given_id, seen_at, status, project, feed_seq FROM runs
        WHERE created_at >= h.hour AND created_at < h.hour + interval '1 hour'
          AND created_at <= h.created_before AND status IN ('queued', 'running')
          AND aged_at IS NULL
        OFFSET 0
    ) AS r
    CROSS JOIN LATERAL (
        SELECT limit_us, feed_seq FROM bounds
        WHERE shard = r.shard AND status = r.status AND project IN (r.project, '')
        ORDER BY project DESC LIMIT 1
    ) AS b
    WHERE r.feed_seq <= b.feed_seq
    LIMIT %(most)s
"""
