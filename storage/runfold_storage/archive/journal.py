"""The journal of steps from the tables into the archive.

Invariant: a step is recorded before its first file gets a name, and its token is in all their
names; it is marked as written when all files are complete; then its data is deleted from the
tables, and with or after the last of it the step. So after a crash retention finds either a step
that is written, and deletes its data, which is harmless if done before; or one that is not, and
removes its files: no data was deleted, so it is selected again. Only one retention runs at a time.
"""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg.types.json import Jsonb

from runfold_storage.ledger.partitions import first_key

from . import layout
from .layout import ALL, EVENTS, NODES, RUNS, STATS, folder_of

if TYPE_CHECKING:  # ending a step does not need pyarrow
    from .store import Archive


class Tombstone(NamedTuple):
    """A run that was deleted on request."""

    run: UUID
    deleted_us: int


def read_unarchived(connection: psycopg.Connection, shard: int, limit: int) -> list[Tombstone]:
    """Return some tombstones that the archive does not have, ordered by key."""
    rows = connection.execute(
        """
        SELECT run, (extract(epoch FROM deleted_at) * 1000000)::bigint FROM tombstones
        WHERE shard = %s AND NOT is_expiry AND NOT archived ORDER BY run LIMIT %s
        """,
        (shard, limit),
    )
    return [Tombstone(*row) for row in rows]


def read_deleted(connection: psycopg.Connection) -> set[bytes]:
    """Return the keys of all runs deleted on request."""
    rows = connection.execute("SELECT run FROM tombstones WHERE NOT is_expiry")
    return {run.bytes for (run,) in rows}


def mark_archived(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Record that the archive has these tombstones."""
    connection.execute(
        "UPDATE tombstones SET archived = true WHERE shard = %s AND run = ANY(%s::uuid[])",
        (shard, list(runs)),
    )


PAYLOADS, ROWS, WEEK, ROLLUPS = "payloads", "rows", "week", "rollups"
TOMBSTONES = "tombstones"


class Step(Struct, frozen=True):
    """A step about `runs` of a shard, a `week` of the ledger, `rollups`, or tombstones of a shard.

    The data is deleted afterwards, except tombstones, which are marked as archived.
    """

    token: UUID
    kind: str
    shard: int | None = None
    week: date | None = None
    runs: list[UUID] = []
    rollups: list[Any] = []
    is_written: bool = False


def begin(connection: psycopg.Connection, step: Step) -> None:
    """Record a step before its first file is written."""
    connection.execute(
        """
        INSERT INTO archive_journal (token, kind, shard, week, runs, rollups)
        VALUES (%s, %s, %s, %s, %s, %s)
        """,
        (step.token, step.kind, step.shard, step.week, step.runs, Jsonb(step.rollups)),
    )


def mark_written(connection: psycopg.Connection, step: Step) -> None:
    """Record that all files of a step are complete, so that their data may be deleted."""
    connection.execute(
        "UPDATE archive_journal SET is_written = true WHERE token = %s", (step.token,)
    )


def end(connection: psycopg.Connection, step: Step) -> None:
    """Delete a step whose data is deleted."""
    connection.execute("DELETE FROM archive_journal WHERE token = %s", (step.token,))


def read_steps(connection: psycopg.Connection) -> list[Step]:
    """Return the steps that were not ended, the oldest first."""
    rows = connection.execute(
        """
        SELECT token, kind, shard, week, runs, rollups, is_written
        FROM archive_journal ORDER BY began_at, token
        """
    )
    return [Step(*row) for row in rows]


def undo(connection: psycopg.Connection, archive: "Archive | None", step: Step) -> None:
    """Delete a step that is not written, and the files that it may have left."""
    if archive is not None:
        for folder in _folders(step):
            archive.remove_step(folder, step.token)
    end(connection, step)


def _folders(step: Step) -> set[str]:
    if step.kind in (ROLLUPS, TOMBSTONES):
        kind = STATS if step.kind == ROLLUPS else layout.TOMBSTONES
        return {f"{kind}/week={ALL}"}
    keys = [run.bytes for run in step.runs]
    if step.week is not None:
        keys.append(first_key(step.week).bytes)
    return {folder_of(kind, key) for kind in (EVENTS, RUNS, NODES) for key in keys}
