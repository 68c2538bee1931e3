"""The statements of one run, as PostgreSQL gets them.

All values are parameters: `shard` and `run` say which run, and `limit` how many rows. Those of
events have `at` and `id`, the key where reading continues, and `types`; `max_bytes` bounds their
bodies.
"""
# ruff: noqa: S608 - joined from constants

from typing import Final

from runfold_storage.filters.run_filter import COLUMNS
from runfold_storage.read_models.summaries import NODE_COLUMNS, NODE_ORDER

# 'infinity', which Python cannot represent, stands there while retention is at work.
RUN: Final = f"""
    SELECT {COLUMNS}, r.change_seq, r.payloads_expired_at IS NOT NULL AS is_expired,
        nullif(r.payloads_expired_at, 'infinity') AS removed_at
    FROM runs AS r WHERE r.shard = %(shard)s AND r.run = %(run)s LIMIT 1
"""

NODES: Final = f"""
    SELECT {NODE_COLUMNS} FROM nodes AS n WHERE n.shard = %(shard)s AND n.run = %(run)s
    ORDER BY {NODE_ORDER} LIMIT %(limit)s
"""

IS_EXPIRED: Final = """
    SELECT payloads_expired_at IS NOT NULL FROM runs
    WHERE shard = %(shard)s AND run = %(run)s LIMIT 1
"""

WAS_EXPIRY: Final = """
    SELECT is_expiry FROM tombstones WHERE shard = %(shard)s AND run = %(run)s LIMIT 1
"""
"""Whether a run without a row was deleted by retention, and not on request."""

PAYLOADS: Final = """
    SELECT type, body, n FROM (
        SELECT e.at, e.id, e.type, e.body, count(*) OVER () AS n,
            sum(octet_length(e.body)) OVER (ORDER BY e.at, e.id) AS bytes
        FROM events AS e
        WHERE e.shard = %(shard)s AND e.run = %(run)s AND e.type <> 'logged'
    ) AS payloads
    WHERE bytes <= %(max_bytes)s ORDER BY at, id LIMIT %(limit)s
"""
"""The events that may carry payloads, up to the limits; `n` counts all of them."""


def event_page(*, has_types: bool, has_key: bool, backwards: bool) -> str:
    """Select a page's events that fit; `n` counts them up to one beyond the limit."""
    compared, side = ("<", "DESC") if backwards else (">", "ASC")
    types = "AND e.type::text = ANY(%(types)s::text[])" if has_types else ""
    key = f"AND (e.at, e.id) {compared} (%(at)s, %(id)s)" if has_key else ""
    order = f"at {side}, id {side}"
    return f"""
        SELECT id, at, type, body, n FROM (
            SELECT id, at, type, body, count(*) OVER () AS n,
                sum(octet_length(body)) OVER (ORDER BY {order}) - octet_length(body) AS before
            FROM (
                SELECT e.id, e.at, e.type, e.body FROM events AS e
                WHERE e.shard = %(shard)s AND e.run = %(run)s {types} {key}
                ORDER BY {order} LIMIT %(limit)s + 1
            ) AS page
        ) AS sized
        WHERE before < %(max_bytes)s ORDER BY {order}
    """
