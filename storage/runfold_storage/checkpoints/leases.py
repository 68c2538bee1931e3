"""Leases: which worker folds which shard.

A worker is registered, and holds its leases, until they expire by the database's clock, so clocks
need not agree. The shares of all live workers differ by at most one shard and add up to all shards.
Leases only avoid duplicate work; the compare-and-set of the positions keeps the fold exact. Every
statement is a transaction of its own and locks rows in the order of the shards, so that workers
neither deadlock nor block each other for long.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import psycopg


class LeaseState(NamedTuple):
    """The shards that a worker holds, and how many it should hold."""

    shards: list[int]
    share: int
    next_expiry_s: float | None
    """Seconds until the first lease of another worker expires, unless that worker renews it."""

    @property
    def surplus(self) -> list[int]:
        """The shards to release."""
        return self.shards[self.share :]


def renew_leases(
    connection: psycopg.Connection, owner: str, *, ttl_s: float, grace_s: float = 0.0
) -> LeaseState:
    """Register this worker, renew its leases, and take free shards up to its share.

    Another worker's lease is free once it expired more than `grace_s` ago.
    """
    connection.execute(_STAY_KNOWN, {"owner": owner, "ttl_s": ttl_s})
    held = connection.execute(_RENEW, {"owner": owner, "ttl_s": ttl_s}).fetchall()
    row = connection.execute(_SHARE, {"owner": owner}).fetchone()
    share, next_expiry_s = row or (0, None)  # None: its registration expired
    if share > len(held):
        wanted = {
            "owner": owner,
            "ttl_s": ttl_s,
            "grace_s": grace_s,
            "room": share - len(held),
        }
        held += connection.execute(_TAKE, wanted).fetchall()
    return LeaseState(sorted(shard for (shard,) in held), share, next_expiry_s)


def give_up(connection: psycopg.Connection, owner: str, shards: Iterable[int]) -> None:
    """Release these shards, so that other workers can take them at once."""
    connection.execute(
        "DELETE FROM leases WHERE owner = %s AND shard = ANY(%s::int[])", (owner, list(shards))
    )


def leave(connection: psycopg.Connection, owner: str) -> None:
    """Release all shards of this worker and unregister it."""
    connection.execute("DELETE FROM leases WHERE owner = %s", (owner,))
    connection.execute("DELETE FROM workers WHERE owner = %s", (owner,))


def count_leases(connection: psycopg.Connection) -> dict[str, int]:
    """Return the number of shards that each worker folds at the moment."""
    rows = connection.execute(
        "SELECT owner, count(*) FROM leases WHERE expires_at > now() GROUP BY owner ORDER BY owner"
    )
    return dict(rows.fetchall())


_STAY_KNOWN: Final = """
    WITH forgotten AS (
        DELETE FROM workers
        WHERE owner IN (
            SELECT owner FROM workers
            WHERE expires_at < now() AND owner <> %(owner)s
            FOR UPDATE SKIP LOCKED
        )
    )
    INSERT INTO workers (owner, expires_at)
    VALUES (%(owner)s, now() + %(ttl_s)s * interval '1 second')
    ON CONFLICT (owner) DO UPDATE SET expires_at = excluded.expires_at
"""

_RENEW: Final = """
    UPDATE leases
    SET expires_at = now() + %(ttl_s)s * interval '1 second'
    WHERE owner = %(owner)s AND shard IN (
        SELECT shard FROM leases WHERE owner = %(owner)s ORDER BY shard FOR UPDATE
    )
    RETURNING shard
"""

# Where the division leaves a remainder, the oldest workers get one more.
_SHARE: Final = """
    WITH known AS (
        SELECT owner, row_number() OVER (ORDER BY joined_at, owner) AS place,
               count(*) OVER () AS number
        FROM workers WHERE expires_at >= now()
    )
    SELECT (s.number / k.number + (k.place <= s.number %% k.number)::int)::int,
           (SELECT extract(epoch FROM min(expires_at) - now())::float8
            FROM leases WHERE owner <> k.owner AND expires_at >= now())
    FROM known AS k CROSS JOIN (SELECT count(*) AS number FROM positions) AS s
    WHERE k.owner = %(owner)s
"""

_TAKE: Final = """
    INSERT INTO leases AS held (shard, owner, expires_at)
    SELECT p.shard, %(owner)s, now() + %(ttl_s)s * interval '1 second'
    FROM positions AS p LEFT JOIN leases AS l ON l.shard = p.shard
    WHERE l.shard IS NULL
       OR (l.owner <> %(owner)s AND l.expires_at < now() - %(grace_s)s * interval '1 second')
    ORDER BY p.shard
    LIMIT %(room)s
    ON CONFLICT (shard) DO UPDATE
    SET owner = excluded.owner, expires_at = excluded.expires_at
    WHERE held.expires_at < now() - %(grace_s)s * interval '1 second'
    RETURNING shard
"""
