"""Runs and nodes: the rows that lists and watchers need.

An indexed column is one that does not change in the life of a run, for a change would end HOT
updates; `fillfactor` leaves room for those.

"""

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from .columns import ROOM_FOR_HOT_UPDATES, TIME, derived, filled, metadata, one_of

RUN_STATUSES: Final = ("queued", "running", "completed", "failed", "cancelled", "lost")
UNUSUAL_STATUSES: Final = ("failed", "cancelled", "lost")
NODE_STATUSES: Final = ("pending", "running", "completed", "failed", "skipped", "cancelled")

LATE_AFTER: Final = timedelta(hours=1)
"""A run that starts later than so long after its first event is a late one."""
LONG_US: Final = 60_000_000
"""A run that took as long is a long one."""
COSTLY_NANO_USD: Final = 100_000_000
"""A run that cost as much is a costly one."""


def fingerprint(node: str) -> Column[Any]:
    """What failures of one kind have in common: see the function in migration 0005."""
    return derived(
        "fingerprint",
        Text,
        "CASE WHEN (status = 'failed'::text) "
        f"THEN runfold_fingerprint(error_type, {node}, error_message) ELSE NULL::text END",
    )


# One row a run: what lists and watchers need. `given_id` is set for ids of the caller's own;
# `aged_at` once retention has taken its events away ('infinity' while it is at it).
runs = Table(
    "runs",
    metadata,
    filled("run", Uuid),
    filled("created_at", TIME),
    Column("queued_at", TIME),
    Column("started_at", TIME),
    Column("finished_at", TIME),
    filled("seen_at", TIME),
    Column("duration_us", BigInteger),
    filled("input_tokens", BigInteger, "0"),
    filled("output_tokens", BigInteger, "0"),
    filled("cost_nano_usd", BigInteger, "0"),
    filled("feed_seq", BigInteger),
    filled("nodes_total", Integer, "0"),
    filled("nodes_pending", Integer, "0"),
    filled("nodes_running", Integer, "0"),
    filled("nodes_completed", Integer, "0"),
    filled("nodes_failed", Integer, "0"),
    filled("nodes_skipped", Integer, "0"),
    filled("nodes_cancelled", Integer, "0"),
    Column("exit_code", Integer),
    filled("shard", SmallInteger),
    filled("attempt", SmallInteger, "1"),
    filled("status", Text),
    filled("project", Text),
    filled("workflow", Text),
    Column("given_id", Text),
    Column("parent_run", Text),
    Column("trigger_type", Text),
    Column("user", Text),
    Column("session", Text),
    Column("tags", JSONB),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("error_node", Text),
    Column("aged_at", TIME),
    derived(
        "unusual_status",
        Text,
        "CASE WHEN (status = ANY (ARRAY['failed'::text, 'cancelled'::text, 'lost'::text])) "
        "THEN status ELSE NULL::text END",
    ),
    fingerprint("error_node"),
    derived(
        "late_started_at",
        TIME,
        "CASE WHEN ((started_at - created_at) > '01:00:00'::interval) "
        "THEN started_at ELSE NULL::timestamp with time zone END",
    ),
    derived(
        "long_duration_us",
        BigInteger,
        "CASE WHEN (duration_us >= 60000000) THEN duration_us ELSE NULL::bigint END",
    ),
    derived(
        "high_cost_nano_usd",
        BigInteger,
        "CASE WHEN (cost_nano_usd >= 100000000) THEN cost_nano_usd ELSE NULL::bigint END",
    ),
    PrimaryKeyConstraint("shard", "run"),
    CheckConstraint(one_of(RUN_STATUSES), name="status"),
    postgresql_with=ROOM_FOR_HOT_UPDATES,
)
Index(None, runs.c.created_at, runs.c.run)
Index(None, runs.c.project, runs.c.created_at, runs.c.run)
Index(None, runs.c.workflow, runs.c.created_at, runs.c.run)
# What few runs have is indexed for those alone; each index is in the order of lists.
for _column in (
    runs.c.user,
    runs.c.session,
    runs.c.trigger_type,
    runs.c.parent_run,
    runs.c.error_type,
    runs.c.fingerprint,
    runs.c.unusual_status,
):
    Index(None, _column, runs.c.created_at, runs.c.run, postgresql_where=_column.is_not(None))
for _column in (runs.c.late_started_at, runs.c.long_duration_us, runs.c.high_cost_nano_usd):
    Index(None, runs.c.created_at, runs.c.run, _column, postgresql_where=_column.is_not(None))
Index(
    None,
    runs.c.tags,
    postgresql_using="gin",
    postgresql_ops={"tags": "jsonb_path_ops"},
    postgresql_where=runs.c.tags.is_not(None),
)

# One row an attempt at a node.
nodes = Table(
    "nodes",
    metadata,
    filled("run", Uuid),
    Column("started_at", TIME),
    Column("finished_at", TIME),
    Column("duration_us", BigInteger),
    filled("input_tokens", BigInteger, "0"),
    filled("output_tokens", BigInteger, "0"),
    filled("cost_nano_usd", BigInteger, "0"),
    filled("shard", SmallInteger),
    filled("attempt", SmallInteger),
    filled("node", Text),
    filled("name", Text),
    filled("status", Text),
    Column("node_type", Text),
    Column("parents", ARRAY(Text)),
    Column("error_type", Text),
    Column("error_message", Text),
    fingerprint("node"),
    PrimaryKeyConstraint("shard", "run", "node", "attempt"),
    CheckConstraint(one_of(NODE_STATUSES), name="status"),
    postgresql_with=ROOM_FOR_HOT_UPDATES,
)
Index(None, nodes.c.finished_at, postgresql_where=nodes.c.fingerprint.is_not(None))
