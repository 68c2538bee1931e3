"""Runs and nodes: the rows that lists and watchers need.

No index names a column that changes in the life of an ordinary run, since that would prevent HOT
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
"""Runs that start later than this after their first event are indexed by their start."""
LONG_US: Final = 60_000_000
"""Runs of at least this duration are indexed by it."""
COSTLY_NANO_USD: Final = 100_000_000
"""Runs of at least this cost are indexed by it."""


def fingerprint(node: str) -> Column[Any]:
    """Return the column of the hash that failures of one kind share (`runfold_fingerprint`)."""
    return derived(
        "fingerprint",
        Text,
        "CASE WHEN (status = 'failed'::text) "
        f"THEN runfold_fingerprint(error_type, {node}, error_message) ELSE NULL::text END",
    )


# One row per run. `external_id` is set where the caller chose the id. `payloads_expired_at` is set
# once retention has deleted the run's events ('infinity' while it is deleting them).
runs = Table(
    "runs",
    metadata,
    filled("run", Uuid),
    filled("created_at", TIME),
    Column("queued_at", TIME),
    Column("started_at", TIME),
    Column("finished_at", TIME),
    filled("last_event_at", TIME),
    Column("duration_us", BigInteger),
    filled("input_tokens", BigInteger, "0"),
    filled("output_tokens", BigInteger, "0"),
    filled("cost_nano_usd", BigInteger, "0"),
    filled("change_seq", BigInteger),
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
    Column("external_id", Text),
    Column("parent_run", Text),
    Column("trigger_type", Text),
    Column("user", Text),
    Column("session", Text),
    Column("tags", JSONB),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("error_node", Text),
    Column("payloads_expired_at", TIME),
    derived(
        "indexed_status",
        Text,
        "CASE WHEN (status = ANY (ARRAY['failed'::text, 'cancelled'::text, 'lost'::text])) "
        "THEN status ELSE NULL::text END",
    ),
    fingerprint("error_node"),
    derived(
        "indexed_late_start_at",
        TIME,
        "CASE WHEN ((started_at - created_at) > '01:00:00'::interval) "
        "THEN started_at ELSE NULL::timestamp with time zone END",
    ),
    derived(
        "indexed_duration_us",
        BigInteger,
        "CASE WHEN (duration_us >= 60000000) THEN duration_us ELSE NULL::bigint END",
    ),
    derived(
        "indexed_cost_nano_usd",
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
# Values that few runs have get partial indexes, each in the order of lists.
for _column in (
    runs.c.user,
    runs.c.session,
    runs.c.trigger_type,
    runs.c.parent_run,
    runs.c.error_type,
    runs.c.fingerprint,
    runs.c.indexed_status,
):
    Index(None, _column, runs.c.created_at, runs.c.run, postgresql_where=_column.is_not(None))
for _column in (
    runs.c.indexed_late_start_at,
    runs.c.indexed_duration_us,
    runs.c.indexed_cost_nano_usd,
):
    Index(None, runs.c.created_at, runs.c.run, _column, postgresql_where=_column.is_not(None))
Index(
    None,
    runs.c.tags,
    postgresql_using="gin",
    postgresql_ops={"tags": "jsonb_path_ops"},
    postgresql_where=runs.c.tags.is_not(None),
)

# One row per attempt at a node.
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
