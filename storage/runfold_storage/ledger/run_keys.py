"""List all runs of a shard in the order of their keys, from any table that has them.

This includes runs that only the ledger has, and runs that the ledger does not have. Each page takes
a few probes of primary keys, so a scan over everything blocks nothing.
"""

from typing import Final
from uuid import UUID

import psycopg

from runfold.protocol.events import MAX_NAME

BEFORE_ALL: Final = bytes(16)


def may_be_run(text: str) -> bool:
    """Return whether this text is a valid run id."""
    return 1 <= len(text) <= MAX_NAME and not any("\ud800" <= c <= "\udfff" for c in text)


def next_keys(connection: psycopg.Connection, shard: int, after: bytes, limit: int) -> list[bytes]:
    """Return at most `limit` keys greater than `after`; fewer if these are the last."""
    rows = connection.execute(_NEXT, {"shard": shard, "after": UUID(bytes=after), "limit": limit})
    return [run.bytes for (run,) in rows]


# The ledger and `nodes` have many rows per run: a recursive query skips from run to run.
_NEXT: Final = """
    WITH RECURSIVE in_ledger AS (
        (SELECT e.run FROM events AS e
         WHERE e.shard = %(shard)s AND e.run > %(after)s ORDER BY e.run LIMIT 1)
        UNION ALL
        SELECT following.run
        FROM in_ledger AS l CROSS JOIN LATERAL (
            SELECT e.run FROM events AS e
            WHERE e.shard = %(shard)s AND e.run > l.run ORDER BY e.run LIMIT 1
        ) AS following
    ), in_nodes AS (
        (SELECT n.run FROM nodes AS n
         WHERE n.shard = %(shard)s AND n.run > %(after)s ORDER BY n.run LIMIT 1)
        UNION ALL
        SELECT following.run
        FROM in_nodes AS l CROSS JOIN LATERAL (
            SELECT n.run FROM nodes AS n
            WHERE n.shard = %(shard)s AND n.run > l.run ORDER BY n.run LIMIT 1
        ) AS following
    )
    SELECT run FROM (
        (SELECT run FROM in_ledger LIMIT %(limit)s)
        UNION
        (SELECT run FROM in_nodes LIMIT %(limit)s)
        UNION
        (SELECT r.run FROM runs AS r
         WHERE r.shard = %(shard)s AND r.run > %(after)s ORDER BY r.run LIMIT %(limit)s)
    ) AS known
    ORDER BY run LIMIT %(limit)s
"""
