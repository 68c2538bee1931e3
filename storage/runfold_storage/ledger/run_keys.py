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


def _distinct_runs(table: str) -> str:
    """Return a recursive CTE that skips from run to run of a table with many rows per run."""
    following = f"""
        SELECT t.run FROM {table} AS t
        WHERE t.shard = %(shard)s AND t.run > {{}} ORDER BY t.run LIMIT 1
    """  # noqa: S608 - made of constants
    return f"""
        in_{table} AS (
            ({following.format("%(after)s")})
            UNION ALL
            SELECT following.run
            FROM in_{table} AS l CROSS JOIN LATERAL ({following.format("l.run")}) AS following
        )
    """  # noqa: S608 - made of constants


_NEXT: Final = f"""
    WITH RECURSIVE {_distinct_runs("events")}, {_distinct_runs("nodes")}
    SELECT run FROM (
        (SELECT run FROM in_events LIMIT %(limit)s)
        UNION
        (SELECT run FROM in_nodes LIMIT %(limit)s)
        UNION
        (SELECT r.run FROM runs AS r
         WHERE r.shard = %(shard)s AND r.run > %(after)s ORDER BY r.run LIMIT %(limit)s)
    ) AS known
    ORDER BY run LIMIT %(limit)s
"""  # noqa: S608 - made of constants
