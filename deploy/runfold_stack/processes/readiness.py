"""Readiness of the fold: whether workers run, and whether they have folded given frames."""

import time
from collections.abc import Mapping
from typing import Final

import psycopg

from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.checkpoints.streams import order
from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.postgres.connections import connect

_POLL_S: Final = 0.1


def workers_fold(database_url: str) -> bool:
    """Return whether every shard has a worker; False while the database does not answer."""
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


def wait_until_folded(
    database_url: str,
    frames: Mapping[int, str],
    *,
    timeout_s: float,
) -> bool:
    """Wait for the fold of these frames (the last of each shard); False if it takes too long."""
    deadline = time.monotonic() + timeout_s
    with connect(database_url, autocommit=True) as connection:
        while True:
            positions = load_positions(connection, frames)
            if all(
                shard in positions and order(positions[shard].position) >= order(frame)
                for shard, frame in frames.items()
            ):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
