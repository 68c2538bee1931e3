"""Runs that a person deleted: the archive is told, for the day that the database is lost."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import psycopg


class Tombstone(NamedTuple):
    """A run that was deleted."""

    run: UUID
    deleted_us: int


def read_unarchived(connection: psycopg.Connection, shard: int, limit: int) -> list[Tombstone]:
    """Some that the archive does not know, by key."""
    rows = connection.execute(
        """
        SELECT run, (extract(epoch FROM deleted_at) * 1000000)::bigint FROM tombstones
        WHERE shard = %s AND NOT aged AND NOT archived ORDER BY run LIMIT %s
        """,
        (shard, limit),
    )
    return [Tombstone(*row) for row in rows]


def read_deleted(connection: psycopg.Connection) -> set[bytes]:
    """All keys, whether the archive knows them or not."""
    rows = connection.execute("SELECT run FROM tombstones WHERE NOT aged")
    return {run.bytes for (run,) in rows}


def note_archived(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """It knows these."""
    connection.execute(
        "UPDATE tombstones SET archived = true WHERE shard = %s AND run = ANY(%s::uuid[])",
        (shard, list(runs)),
    )
