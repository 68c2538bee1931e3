"""Expire statistics: read the rollups that are due, to archive them, and delete them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from runfold_storage.records.rollup import ROLLUP_VALUES
from runfold_storage.rollups.shard_lock import lock_shard
from runfold_storage.rollups.store import rebuild_days

from .policies import POLICIES, due


class OldRollup(NamedTuple):
    """A row of `rollups_hourly` that is due; `version` changes with each update of the row."""

    workflow: str
    project: str
    node: str
    hour_us: int
    status: str
    version: str
    figures: tuple[Any, ...]
    """The columns from `n` on, in the order of the archive."""

    @property
    def identity(self) -> list[Any]:
        """The key and the version, as JSON values."""
        return list(self[:-1])


def read_old_rollups(
    connection: psycopg.Connection, shard: int, now: datetime, limit: int
) -> list[OldRollup]:
    """Return some rollups that are due and whose hour has no runs left; empty if there are none."""
    rows = connection.execute(_OLD, {"shard": shard, "now": now, "limit": limit})
    return [
        OldRollup(workflow, project, node, hour_us, status, version, tuple(figures))
        for workflow, project, node, hour_us, status, version, *figures in rows
    ]


def remove_rollups(
    connection: psycopg.Connection, shard: int, identities: Sequence[Sequence[Any]]
) -> int:
    """Delete these rollups unless they have changed; return how many were deleted."""
    with lock_shard(connection, shard) as held:
        held.merge_deltas()
        deleted = connection.execute(
            """
            DELETE FROM rollups_hourly AS s
            USING jsonb_to_recordset(%(gone)s) AS g (
                workflow text, project text, node text, hour_us bigint, status text, version text
            )
            WHERE s.shard = %(shard)s AND s.workflow = g.workflow AND s.project = g.project
              AND s.node = g.node AND s.status = g.status
              AND s.hour = to_timestamp(g.hour_us / 1000000) AND s.xmin::text = g.version
            RETURNING g.hour_us
            """,
            {
                "shard": shard,
                "gone": Jsonb(
                    [dict(zip(OldRollup._fields, each, strict=False)) for each in identities]
                ),
            },
        ).fetchall()
        rebuild_days(connection, shard, (hour_us for (hour_us,) in deleted))
    return len(deleted)


_OLD: Final = f"""
    SELECT s.workflow, s.project, s.node, (extract(epoch FROM s.hour) * 1000000)::bigint, s.status,
           s.xmin::text, {", ".join(f"s.{name}" for name in ROLLUP_VALUES)}
    FROM rollups_hourly AS s {POLICIES.format("s")}
    WHERE s.shard = %(shard)s AND {due("stats_days", "s.hour")} AND NOT EXISTS (
        SELECT FROM runs AS r WHERE r.project = s.project
          AND r.created_at >= s.hour AND r.created_at < s.hour + interval '1 hour'
    )
    LIMIT %(limit)s
"""  # noqa: S608 - made of constants
