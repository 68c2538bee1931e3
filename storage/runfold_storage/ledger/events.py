"""Read events of the ledger, from which any run can be folded again, and dead letters.

A restore reads the ledger of another database: only its tables `events` and, if it exists,
`tombstones`, so a partial dump is enough.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from runfold.protocol.ids import is_own_id
from runfold.protocol.streams import shard_of
from runfold_storage.errors import RestoreRefused

_PAGE_LIMITS: Final = {"limit": 5000, "bytes": 16 * 1024 * 1024}
"""The most events in a page, and the size of their bodies."""


class LedgerEvent(NamedTuple):
    """An event on its way into the archive or out of it."""

    run: bytes
    id: int
    at_us: int
    type: str
    body: str


class StoredEvent(NamedTuple):
    """One event of the ledger; `body` is empty where it was not loaded."""

    shard: int
    run: bytes
    id: int
    at_us: int
    type: str
    body: bytes


def with_run_id(body: bytes, run_id: str) -> bytes:
    """Return the body as the ledger stores it for a run whose id the caller chose.

    The key of such a run is a hash, so the body keeps the id, from which a rebuild restores it.
    """
    fields = body.strip()[1:-1].strip()
    given = b'{"run":' + msgspec.json.encode(run_id)
    return given + (b"," + fields if fields else b"") + b"}"


class _Named(msgspec.Struct):
    run: str


def load_external_ids(
    connection: psycopg.Connection, shard: int, keys: Sequence[bytes]
) -> dict[bytes, str]:
    """Return the ids of these runs, whose callers chose the ids; any of their events has it."""
    rows = connection.execute(
        """
        SELECT k.run, e.body
        FROM unnest(%(keys)s::uuid[]) AS k (run) CROSS JOIN LATERAL (
            SELECT body FROM events
            WHERE shard = %(shard)s AND run = k.run ORDER BY id LIMIT 1
        ) AS e
        """,
        {"keys": [UUID(bytes=key) for key in keys], "shard": shard},
    )
    return {run.bytes: msgspec.json.decode(body, type=_Named).run for run, body in rows}


def load_for_fold(
    connection: psycopg.Connection, keys: Sequence[tuple[int, bytes]]
) -> Iterator[StoredEvent]:
    """Yield all events of these (shard, run key) pairs, in no order, without log texts."""
    rows = connection.execute(
        """
        SELECT e.shard, e.run, e.id, (extract(epoch FROM e.at) * 1000000)::bigint, e.type::text,
               CASE WHEN e.type = 'logged' THEN '' ELSE e.body END
        FROM unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
        JOIN events AS e ON e.shard = k.shard AND e.run = k.run
        """,
        ([shard for shard, _ in keys], [UUID(bytes=key) for _, key in keys]),
    )
    for shard, run, event_id, at_us, event_type, body in rows:
        yield StoredEvent(shard, run.bytes, event_id, at_us, event_type, body.encode())


def load_deleted(
    connection: psycopg.Connection, keys: Sequence[tuple[int, bytes]]
) -> set[tuple[int, bytes]]:
    """Return which of these runs were deleted on request; they accept no more events."""
    return _load_refs(connection, _DELETED, keys)


def load_expired(
    connection: psycopg.Connection, keys: Sequence[tuple[int, bytes]]
) -> set[tuple[int, bytes]]:
    """Return the runs whose events retention deleted: they cannot be folded again, and accept no
    more events."""
    return _load_refs(connection, _AGED, keys)


_DELETED: Final = """
    SELECT t.shard, t.run
    FROM unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
    JOIN tombstones AS t ON t.shard = k.shard AND t.run = k.run AND NOT t.is_expiry
"""
_AGED: Final = """
    SELECT k.shard, k.run
    FROM unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
    WHERE EXISTS (
        SELECT FROM runs AS r
        WHERE r.shard = k.shard AND r.run = k.run AND r.payloads_expired_at IS NOT NULL
    ) OR EXISTS (
        SELECT FROM tombstones AS t WHERE t.shard = k.shard AND t.run = k.run AND t.is_expiry
    )
"""


def _load_refs(
    connection: psycopg.Connection, statement: LiteralString, keys: Sequence[tuple[int, bytes]]
) -> set[tuple[int, bytes]]:
    rows = connection.execute(
        statement, ([shard for shard, _ in keys], [UUID(bytes=key) for _, key in keys])
    )
    return {(shard, run.bytes) for shard, run in rows}


def read_pages(
    connection: psycopg.Connection,
    shard: int,
    *,
    table: str = "events",
    condition: LiteralString = "true",
    **parameters: Any,
) -> Iterator[list[LedgerEvent]]:
    """Yield the events `e` of a shard by run and id, a bounded page in each statement."""
    statement = sql.SQL(_PAGE).format(sql.Identifier(table), sql.SQL(condition))
    after = {"run": UUID(int=0), "id": -1}
    while rows := connection.execute(
        statement, {"shard": shard, **after, **_PAGE_LIMITS, **parameters}
    ).fetchall():
        yield [LedgerEvent(run.bytes, *rest) for run, *rest in rows]
        after = {"run": rows[-1][0], "id": rows[-1][1]}


_PAGE: Final = """
    WITH page AS (
        SELECT e.run, e.id, e.at, e.type, e.body FROM {} AS e
        WHERE e.shard = %(shard)s AND (e.run, e.id) > (%(run)s, %(id)s) AND {}
        ORDER BY e.run, e.id LIMIT %(limit)s
    ), sized AS (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY run, id) - octet_length(body) AS before
        FROM page
    )
    SELECT run, id, (extract(epoch FROM at) * 1000000)::bigint, type::text, body
    FROM sized WHERE before < %(bytes)s ORDER BY run, id
"""


def check_shard(events: Sequence[LedgerEvent], shard: int, shards: int) -> None:
    """Raise `RestoreRefused` if another ledger's number of shards differs."""
    for run in {event.run for event in events if not is_own_id(event.run)}:
        name = str(UUID(bytes=run))
        if shard_of(name, shards) != shard:
            raise RestoreRefused(
                f"the ledger does not belong to a deployment with {shards} shards: it has run"
                f" {name} on shard {shard}"
            )


def count_dead_letters(connection: psycopg.Connection) -> int:
    """Return the number of frames and events that could not be decoded."""
    ((n,),) = connection.execute("SELECT count(*) FROM dead_letters")
    return int(n)


def latest_reasons(connection: psycopg.Connection, limit: int) -> list[tuple[str, int]]:
    """Return the reasons of the newest thousand, each with its number, the latest first."""
    rows = connection.execute(
        """
        SELECT reason, count(*) FROM (
            SELECT reason, created_at FROM dead_letters ORDER BY id DESC LIMIT 1000
        ) AS latest
        GROUP BY reason ORDER BY max(created_at) DESC, reason LIMIT %s
        """,
        (limit,),
    )
    return rows.fetchall()


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
