"""Read the ledger of another database: its events and its deleted runs.

Only the tables `events` and, if it exists, `tombstones` are read, so a partial dump is enough.
"""

from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from runfold.protocol.ids import is_own_id
from runfold.protocol.streams import shard_of
from runfold_storage.errors import RestoreRefused


class RestoredEvent(NamedTuple):
    """An event to restore into the ledger."""

    run: bytes
    id: int
    at_us: int
    type: str
    body: str


PAGE_EVENTS: Final = 5000
PAGE_BYTES: Final = 16 * 1024 * 1024

Place = tuple[UUID, int]
"""(run key, event id)"""
BEFORE_ALL: Final[Place] = (UUID(int=0), -1)


class Page(NamedTuple):
    """Events of a shard, ordered by run and id; `last` is None on the last page."""

    events: list[RestoredEvent]
    last: Place | None


def read_page(connection: psycopg.Connection, shard: int, shards: int, after: Place) -> Page:
    """Return the next events; raise `RestoreRefused` if the number of shards differs."""
    parameters = {"shard": shard, "run": after[0], "id": after[1]}
    parameters |= {"limit": PAGE_EVENTS, "bytes": PAGE_BYTES}
    rows = connection.execute(_PAGE, parameters).fetchall()
    for run, *_ in rows:
        if not is_own_id(run) and shard_of(str(run), shards) != shard:
            raise RestoreRefused(
                f"the ledger does not belong to a deployment with {shards} shards: it has run {run}"
                f" on shard {shard}"
            )
    events = [RestoredEvent(run.bytes, *rest) for run, *rest in rows]
    return Page(events, (rows[-1][0], rows[-1][1]) if rows else None)


def read_deleted(connection: psycopg.Connection, shard: int) -> list[tuple[bytes, int]]:
    """Return (run key, time in µs) of runs deleted on request; none if the table is missing."""
    if connection.execute("SELECT to_regclass('tombstones') IS NULL").fetchone() == (True,):
        return []
    rows = connection.execute(
        """
        SELECT run, (extract(epoch FROM deleted_at) * 1000000)::bigint FROM tombstones
        WHERE shard = %s AND NOT is_expiry ORDER BY run
        """,
        (shard,),
    )
    return [(run.bytes, deleted_us) for run, deleted_us in rows]


_PAGE: Final = """
    WITH page AS (
        SELECT run, id, at, type, body FROM events
        WHERE shard = %(shard)s AND (run, id) > (%(run)s, %(id)s)
        ORDER BY run, id LIMIT %(limit)s
    ), sized AS (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY run, id) - octet_length(body) AS before
        FROM page
    )
    SELECT run, id, (extract(epoch FROM at) * 1000000)::bigint, type::text, body
    FROM sized WHERE before < %(bytes)s ORDER BY run, id
"""
