"""Reading the ledger back: the source of truth from which any run can be folded again."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec
import psycopg

from runfold.codec import Envelope
from runfold.ids import is_own_id

from .rows import LedgerRow


class StoredEvent(NamedTuple):
    """One event of the ledger; `body` is empty where it was not asked for."""

    shard: int
    run: UUID
    id: int
    at_us: int
    type: str
    body: bytes


def to_row(envelope: Envelope, shard: int, key: UUID) -> LedgerRow:
    """How the ledger keeps an event.

    The key of a caller's own id is a hash, so such an id stays in the body, from where a rebuild
    can tell it again.
    """
    body = envelope.body
    if is_own_id(key):
        fields = body.strip()[1:-1].strip()
        given = b'{"run":' + msgspec.json.encode(envelope.run)
        body = given + (b"," + fields if fields else b"") + b"}"
    return LedgerRow(key, envelope.id, envelope.at_us, envelope.type, shard, body)


def load_for_fold(
    connection: psycopg.Connection, keys: Sequence[tuple[int, UUID]]
) -> Iterator[StoredEvent]:
    """All events of these (shard, run key) pairs, in no order; log texts are left out."""
    rows = connection.execute(
        """
        SELECT e.shard, e.run, e.id, (extract(epoch FROM e.at) * 1000000)::bigint, e.type::text,
               CASE WHEN e.type = 'logged' THEN '' ELSE e.body END
        FROM unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
        JOIN events AS e ON e.shard = k.shard AND e.run = k.run
        """,
        ([shard for shard, _ in keys], [key for _, key in keys]),
    )
    for shard, run, event_id, at_us, event_type, body in rows:
        yield StoredEvent(shard, run, event_id, at_us, event_type, body.encode())


def load_tombstones(
    connection: psycopg.Connection, keys: Sequence[tuple[int, UUID]]
) -> set[tuple[int, UUID]]:
    """Which of these runs were deleted."""
    rows = connection.execute(
        """
        SELECT t.shard, t.run
        FROM unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
        JOIN tombstones AS t ON t.shard = k.shard AND t.run = k.run
        """,
        ([shard for shard, _ in keys], [key for _, key in keys]),
    )
    return {(shard, run) for shard, run in rows}
