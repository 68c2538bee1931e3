"""Runs and nodes: the rows that lists and watchers need.

No index names a column that changes in the life of an ordinary run, since that would prevent HOT
updates; `fillfactor` leaves room for those.
"""

from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from .columns import TIME, derived, filled, nullable, table

RUN_STATUSES: Final = ("queued", "running", "completed", "failed", "cancelled", "lost")
UNUSUAL_STATUSES: Final = ("failed", "cancelled", "lost")
NODE_STATUSES: Final = ("pending", "running", "completed", "failed", "skipped", "cancelled")

LATE_AFTER: Final = timedelta(hours=1)
"""Runs that start later than this after their first event are indexed by their start."""
LONG_US: Final = 60_000_000
"""Runs of at least this duration are indexed by it."""
COSTLY_NANO_USD: Final = 100_000_000
"""Runs of at least this cost are indexed by it."""


def fingerprint(node: str) -> sa.Column[Any]:
    """Return the column of the hash that failures of one kind share (`runfold_fingerprint`)."""
    return derived(
        "fingerprint",
        sa.Text,
        "CASE WHEN (status = 'failed'::text) "
        f"THEN runfold_fingerprint(error_type, {node}, error_message) ELSE NULL::text END",
    )


# One row per run. `external_id` is set where the caller chose the id. `payloads_expired_at` is set
# once retention has deleted the run's events ('infinity' while it is deleting them).
runs = table(
    "runs",
    ("shard", "run"),
    *filled(sa.Uuid, "run"),
    *filled(TIME, "created_at", "last_event_at"),
    *nullable(TIME, "queued_at", "started_at", "finished_at", "payloads_expired_at"),
    *nullable(sa.BigInteger, "duration_us"),
    *filled(sa.BigInteger, "input_tokens", "output_tokens", "cost_nano_usd", default="0"),
    *filled(sa.BigInteger, "change_seq"),
    *filled(sa.Integer, "nodes_total", *(f"nodes_{each}" for each in NODE_STATUSES), default="0"),
    *nullable(sa.Integer, "exit_code"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.SmallInteger, "attempt", default="1"),
    *filled(sa.Text, "status", "project", "workflow"),
    *nullable(sa.Text, "external_id", "parent_run", "trigger_type", "user", "session"),
    *nullable(JSONB, "tags"),
    *nullable(sa.Text, "error_type", "error_message", "error_node"),
    derived(
        "indexed_status",
        sa.Text,
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
        sa.BigInteger,
        "CASE WHEN (duration_us >= 60000000) THEN duration_us ELSE NULL::bigint END",
    ),
    derived(
        "indexed_cost_nano_usd",
        sa.BigInteger,
        "CASE WHEN (cost_nano_usd >= 100000000) THEN cost_nano_usd ELSE NULL::bigint END",
    ),
)
sa.Index(None, runs.c.created_at, runs.c.run)
sa.Index(None, runs.c.project, runs.c.created_at, runs.c.run)
sa.Index(None, runs.c.workflow, runs.c.created_at, runs.c.run)
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
    sa.Index(None, _column, runs.c.created_at, runs.c.run, postgresql_where=_column.is_not(None))
for _column in (
    runs.c.indexed_late_start_at,
    runs.c.indexed_duration_us,
    runs.c.indexed_cost_nano_usd,
):
    sa.Index(None, runs.c.created_at, runs.c.run, _column, postgresql_where=_column.is_not(None))
sa.Index(
    None,
    runs.c.tags,
    postgresql_using="gin",
    postgresql_ops={"tags": "jsonb_path_ops"},
    postgresql_where=runs.c.tags.is_not(None),
)

# One row per attempt at a node.
nodes = table(
    "nodes",
    ("shard", "run", "node", "attempt"),
    *filled(sa.Uuid, "run"),
    *nullable(TIME, "started_at", "finished_at"),
    *nullable(sa.BigInteger, "duration_us"),
    *filled(sa.BigInteger, "input_tokens", "output_tokens", "cost_nano_usd", default="0"),
    *filled(sa.SmallInteger, "shard", "attempt"),
    *filled(sa.Text, "node", "name", "status"),
    *nullable(sa.Text, "node_type"),
    *nullable(ARRAY(sa.Text), "parents"),
    *nullable(sa.Text, "error_type", "error_message"),
    fingerprint("node"),
)
sa.Index(None, nodes.c.finished_at, postgresql_where=nodes.c.fingerprint.is_not(None))
