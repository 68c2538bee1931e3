"""Steps from tables into the archive: what is written first, and goes only when it is there.

Invariant: a step is noted down before its first file gets a name, and its name is in each of them;
`written` is noted when all of them are complete; then what it wrote is taken out of the tables, and
with the last of that, or after it, the step is forgotten. So whoever comes after a crash finds a
step that is `written`, and takes away what it wrote, which changes nothing where that has gone; or
one that is not, and removes its files: nothing has gone yet, and retention will find it again. One
retention at a time is at work (`retaining`).
"""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
from msgspec import Struct
from psycopg.types.json import Jsonb

from runfold_storage.ledger.partitions import first_key

from . import layout
from .layout import ALL, EVENTS, NODES, RUNS, STATS, folder_of

if TYPE_CHECKING:  # pyarrow need not be there to end a step
    from .store import Archive
from typing import NamedTuple


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


PAYLOADS, ROWS, WEEK, ROLLUPS = "payloads", "rows", "week", "rollups"
TOMBSTONES = "tombstones"


class Step(Struct, frozen=True, kw_only=True):
    """`runs` of a shard, a `week` of the ledger, or `rollups` of a shard: what goes afterwards.

    Tombstones do not go, they are marked.
    """

    token: UUID
    kind: str
    shard: int | None = None
    week: date | None = None
    runs: list[UUID] = []
    rollups: list[Any] = []
    written: bool = False


def begin(
    connection: psycopg.Connection,
    kind: str,
    *,
    shard: int | None = None,
    week: date | None = None,
    runs: Sequence[UUID] = (),
    rollups: Sequence[Any] = (),
) -> Step:
    """Note a step down; nothing of it is written yet."""
    step = Step(
        token=uuid4(), kind=kind, shard=shard, week=week, runs=list(runs), rollups=list(rollups)
    )
    connection.execute(
        """
        INSERT INTO archive_steps (token, kind, shard, week, runs, rollups)
        VALUES (%s, %s, %s, %s, %s, %s)
        """,
        (step.token, kind, shard, week, step.runs, Jsonb(step.rollups)),
    )
    return step


def note_written(connection: psycopg.Connection, step: Step) -> None:
    """All its files are complete: what they hold may go."""
    connection.execute("UPDATE archive_steps SET written = true WHERE token = %s", (step.token,))


def end(connection: psycopg.Connection, step: Step) -> None:
    """What it wrote has gone."""
    connection.execute("DELETE FROM archive_steps WHERE token = %s", (step.token,))


def read_steps(connection: psycopg.Connection) -> list[Step]:
    """Those that someone did not live to end, the oldest first."""
    rows = connection.execute(
        """
        SELECT token, kind, shard, week, runs, rollups, written
        FROM archive_steps ORDER BY began_at, token
        """
    )
    return [
        Step(
            token=token,
            kind=kind,
            shard=shard,
            week=week,
            runs=runs,
            rollups=rollups,
            written=written,
        )
        for token, kind, shard, week, runs, rollups, written in rows
    ]


def undo(connection: psycopg.Connection, archive: "Archive | None", step: Step) -> None:
    """Forget a step that is not written, and the files that it may have left."""
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
