"""The least and the most of a rollup, when what is taken back may have been one of them.

A sum can be taken back by adding what is negative; an extreme has to be looked up.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import psycopg

from runfold.codec import to_datetime

from .rollups import DAY_US
from .rows import StatsDifference, StatsKey

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


_EXTREMES_OF_DAYS: Final = (
    """
    UPDATE stats_days SET (duration_min_us, duration_max_us) = (
        SELECT min(s.duration_min_us), max(s.duration_max_us)
        FROM stats AS s
        WHERE s.workflow = %(workflow)s AND s.project = %(project)s AND s.node = ''
          AND s.shard = %(shard)s AND s.n_timed > 0
          AND s.hour >= %(day)s AND s.hour < %(day)s + interval '1 day'
    )
    WHERE workflow = %(workflow)s AND project = %(project)s AND day = %(day)s AND shard = %(shard)s
    """,
    """
    UPDATE stats_days SET (duration_min_us, duration_max_us) = (
        SELECT min(d.duration_min_us), max(d.duration_max_us)
        FROM stats_days AS d
        WHERE d.workflow <> '' AND d.project = %(project)s AND d.shard = %(shard)s
          AND d.day = %(day)s AND d.n_timed > 0
    )
    WHERE workflow = '' AND project = %(project)s AND day = %(day)s AND shard = %(shard)s
    """,
    """
    UPDATE stats_days SET (duration_min_us, duration_max_us) = (
        SELECT min(d.duration_min_us), max(d.duration_max_us)
        FROM stats_days AS d
        WHERE d.workflow = '' AND d.project <> '' AND d.shard = %(shard)s
          AND d.day = %(day)s AND d.n_timed > 0
    )
    WHERE workflow = '' AND project = '' AND day = %(day)s AND shard = %(shard)s
    """,
)


class TakenBack(NamedTuple):
    """Durations that a rollup counts no more, from the least to the most."""

    key: StatsKey
    least_us: int
    most_us: int


def taken_back(stats: Mapping[StatsKey, StatsDifference]) -> list[TakenBack]:
    """What these differences take back, in the order of their keys."""
    found = []
    for key, difference in stats.items():
        if difference.durations:
            gone = [duration for duration, count in difference.durations.items() if count < 0]
            if gone:
                found.append(TakenBack(key, min(gone), max(gone)))
    return sorted(found)


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
    if not key.node:
        day = to_datetime(key.hour_us - key.hour_us % DAY_US)
        for statement in _EXTREMES_OF_DAYS:
            connection.execute(statement, {**key._asdict(), "day": day})
