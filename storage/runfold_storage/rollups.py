"""The rollups: differences are added to what is there."""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

import psycopg

from runfold.codec import to_datetime

from .encoding import STATS_FIELDS
from .rows import StatsDifference, StatsKey
from .upserts import Upsert

STATS: Final = Upsert(
    "stats",
    STATS_FIELDS,
    STATS_FIELDS[:6],
    assignments="""
        n = stats.n + excluded.n,
        n_timed = stats.n_timed + excluded.n_timed,
        duration_min_us = least(stats.duration_min_us, excluded.duration_min_us),
        duration_max_us = greatest(stats.duration_max_us, excluded.duration_max_us),
        duration_sum_us = stats.duration_sum_us + excluded.duration_sum_us,
        input_tokens = stats.input_tokens + excluded.input_tokens,
        output_tokens = stats.output_tokens + excluded.output_tokens,
        cost_nano_usd = stats.cost_nano_usd + excluded.cost_nano_usd,
        (bins, bin_counts) = (
            SELECT added.bins, added.bin_counts
            FROM runfold_add_bins(
                stats.bins, stats.bin_counts, excluded.bins, excluded.bin_counts
            ) AS added
        )
    """,
)


_EXTREMES: Final = """
    UPDATE stats SET (duration_min_us, duration_max_us) = (
        SELECT min(duration_us), max(duration_us)
        FROM (
            SELECT r.duration_us
            FROM runs AS r
            WHERE stats.n_timed > 0 AND %(node)s = '' AND r.status = %(status)s
              AND r.workflow = %(workflow)s AND r.project = %(project)s AND r.shard = %(shard)s
              AND r.created_at >= %(hour)s AND r.created_at < %(hour)s + interval '1 hour'
            UNION ALL
            SELECT n.duration_us
            FROM runs AS r JOIN nodes AS n ON n.shard = r.shard AND n.run = r.run
            WHERE stats.n_timed > 0 AND n.name = %(node)s AND n.status = %(status)s
              AND r.workflow = %(workflow)s AND r.project = %(project)s AND r.shard = %(shard)s
              AND r.created_at >= %(hour)s AND r.created_at < %(hour)s + interval '1 hour'
        ) AS counted
    )
    WHERE workflow = %(workflow)s AND project = %(project)s AND node = %(node)s
      AND hour = %(hour)s AND status = %(status)s AND shard = %(shard)s
      AND (duration_min_us >= %(least)s OR duration_max_us <= %(most)s)
      -- Of hours that have aged the rows do not tell any more.
      AND NOT EXISTS (
          SELECT FROM aged_hours AS a WHERE a.project = stats.project AND a.hour = stats.hour
      )
"""


class TakenBack(NamedTuple):
    """Durations that a rollup counts no more, from the least to the most."""

    key: StatsKey
    least_us: int
    most_us: int


def taken_back(stats: Mapping[StatsKey, StatsDifference]) -> list[TakenBack]:
    """What these differences take back, in the order of their keys."""
    found = []
    for key, difference in sorted(stats.items(), key=lambda item: item[0]):
        gone = [duration for duration, count in difference.durations.items() if count < 0]
        if gone:
            found.append(TakenBack(key, min(gone), max(gone)))
    return found


def find_extremes(connection: psycopg.Connection, gone: TakenBack) -> None:
    """Look a rollup's minimum and maximum up among its rows, if they may be what was taken back.

    Rare, so it may cost a scan.
    """
    key = gone.key
    connection.execute(
        _EXTREMES,
        {
            **key._asdict(),
            "hour": to_datetime(key.hour_us),
            "least": gone.least_us,
            "most": gone.most_us,
        },
    )


def drop_empty(connection: psycopg.Connection, keys: Collection[StatsKey]) -> None:
    """Take away those of these rollups that count nothing any more; their shards are held."""
    connection.execute(
        """
        DELETE FROM stats AS s
        USING unnest(
            %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::smallint[]
        ) AS k (workflow, project, node, hour, status, shard)
        WHERE s.workflow = k.workflow AND s.project = k.project AND s.node = k.node
          AND s.hour = k.hour AND s.status = k.status AND s.shard = k.shard
          AND s.n = 0 AND s.n_timed = 0
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
