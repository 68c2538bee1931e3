"""Waiting until workers have folded what was sent."""

import time
from collections.abc import Callable, Mapping
from typing import Final

import psycopg

from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.checkpoints.streams import order
from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.postgres.connections import connect


def workers_fold(database_url: str) -> bool:
    """Whether all shards are owned; False as well while the database does not answer."""
    try:
        with connect(database_url, autocommit=True) as connection:
            row = connection.execute(
                """
                SELECT count(*), count(*) FILTER (WHERE leases.expires_at > now())
                FROM positions LEFT JOIN leases USING (shard)
                """
            ).fetchone()
    except (DatabaseUnreachable, psycopg.Error):
        return False
    return row is not None and row[0] > 0 and row[0] == row[1]


_POLL_S: Final = 0.1


def wait_until_folded(
    database_url: str,
    frames: Mapping[int, str],
    *,
    timeout_s: float,
    progress: Callable[[int], None] = lambda _: None,
) -> bool:
    """Whether all these frames (the last of each shard) were folded in time.

    `progress` is told how many shards still have something to fold.
    """
    deadline = time.monotonic() + timeout_s
    with connect(database_url, autocommit=True) as connection:
        while True:
            positions = load_positions(connection, frames)
            behind = sum(
                shard not in positions or order(positions[shard].position) < order(frame)
                for shard, frame in frames.items()
            )
            progress(behind)
            if not behind:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
