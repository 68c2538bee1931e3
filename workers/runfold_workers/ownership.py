"""Who folds which shard: leases in PostgreSQL, renewed by their owner and free when they expire.

Leases only keep two workers from doing the same work; what keeps the fold exact is the
compare-and-set of the positions. Time is the database's, so that clocks need not agree.
"""

from typing import Final

import psycopg

TTL_S: Final = 6.0
RENEW_S: Final = 2.0


def take_leases(connection: psycopg.Connection, owner: str, *, ttl_s: float = TTL_S) -> list[int]:
    """Renew this owner's leases and take all free ones; returns the shards it has now."""
    rows = connection.execute(
        """
        INSERT INTO leases AS held (shard, owner, expires_at)
        SELECT shard, %(owner)s, now() + %(ttl_s)s * interval '1 second'
        FROM positions
        ORDER BY shard
        ON CONFLICT (shard) DO UPDATE
        SET owner = excluded.owner, expires_at = excluded.expires_at
        WHERE held.owner = excluded.owner OR held.expires_at < now()
        RETURNING shard
        """,
        {"owner": owner, "ttl_s": ttl_s},
    )
    return sorted(shard for (shard,) in rows)


def release_leases(connection: psycopg.Connection, owner: str) -> None:
    """Let another worker take over at once."""
    connection.execute("DELETE FROM leases WHERE owner = %s", (owner,))
