"""Readiness of the fold: whether workers run, and whether they have folded given frames."""

import time
from collections.abc import Mapping
from typing import Final

import psycopg

from runfold_storage.checkpoints.leases import count_leases
from runfold_storage.checkpoints.positions import count_shards, load_positions
from runfold_storage.checkpoints.streams import order
from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.postgres.connections import connect

_POLL_S: Final = 0.1


def workers_fold(database_url: str) -> bool:
    """Return whether every shard has a worker; False while the database does not answer."""
    try:
        with connect(database_url, autocommit=True) as connection:
            shards = count_shards(connection)
            return 0 < shards == sum(count_leases(connection).values())
    except (DatabaseUnreachable, psycopg.Error):
        return False


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
