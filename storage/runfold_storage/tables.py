"""Every table, as it should be. Migrations lead there; a test compares the two.

Keys begin with the shard, which follows from the run id, so that a deployment can distribute
tables by it. Columns are ordered to avoid padding. An indexed column is one that does not change
in the life of a run, for a change would end HOT updates; `fillfactor` leaves room for those.
"""

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Enum,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from runfold.codec import TYPES

metadata: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

RUN_STATUSES: Final = ("queued", "running", "completed", "failed", "cancelled", "lost")
UNUSUAL_STATUSES: Final = ("failed", "cancelled", "lost")
NODE_STATUSES: Final = ("pending", "running", "completed", "failed", "skipped", "cancelled")

LATE_AFTER: Final = timedelta(hours=1)
"""A run that starts later than so long after its first event is a late one."""
LONG_US: Final = 60_000_000
"""A run that took as long is a long one."""
COSTLY_NANO_USD: Final = 100_000_000
"""A run that cost as much is a costly one."""

_TIME: Final = DateTime(timezone=True)
_ROOM_FOR_HOT_UPDATES: Final = {"fillfactor": 80}


def _filled(name: str, kind: Any, default: str | None = None) -> Column[Any]:
    """A column that is never null."""
    server_default = None if default is None else text(default)
    return Column(name, kind, nullable=False, server_default=server_default)


def _derived(name: str, kind: Any, expression: str) -> Column[Any]:
    """A column that PostgreSQL computes; written as it shows it, so that the two can be compared.

    Null but for the few rows that its index is for: HOT compares values, so for all other rows the
    columns that it comes from may change.
    """
    return Column(name, kind, Computed(expression, persisted=True))


def _fingerprint(node: str) -> Column[Any]:
    """What failures of one kind have in common: see the function in migration 0005."""
    return _derived(
        "fingerprint",
        Text,
        "CASE WHEN (status = 'failed'::text) "
        f"THEN runfold_fingerprint(error_type, {node}, error_message) ELSE NULL::text END",
    )


def _one_of(values: tuple[str, ...]) -> str:
    return "status IN ({})".format(", ".join(f"'{value}'" for value in values))


# The ledger: the source of truth. `body` is the JSON text of all fields but the envelope's.
# Partitioned by week on the run id, which is time-ordered; see `partitions`.
events = Table(
    "events",
    metadata,
    _filled("run", Uuid),
    _filled("id", BigInteger),
    _filled("at", _TIME),
    _filled("type", Enum(*TYPES, name="event_type")),
    _filled("shard", SmallInteger),
    _filled("body", Text),
    PrimaryKeyConstraint("shard", "run", "id"),
    postgresql_partition_by="RANGE (run)",
)

# One row a run: what lists and watchers need. `given_id` is set for ids of the caller's own;
# `aged_at` once retention has taken its events away ('infinity' while it is at it).
runs = Table(
    "runs",
    metadata,
    _filled("run", Uuid),
    _filled("created_at", _TIME),
    Column("queued_at", _TIME),
    Column("started_at", _TIME),
    Column("finished_at", _TIME),
    _filled("seen_at", _TIME),
    Column("duration_us", BigInteger),
    _filled("input_tokens", BigInteger, "0"),
    _filled("output_tokens", BigInteger, "0"),
    _filled("cost_nano_usd", BigInteger, "0"),
    _filled("feed_seq", BigInteger),
    _filled("nodes_total", Integer, "0"),
    _filled("nodes_pending", Integer, "0"),
    _filled("nodes_running", Integer, "0"),
    _filled("nodes_completed", Integer, "0"),
    _filled("nodes_failed", Integer, "0"),
    _filled("nodes_skipped", Integer, "0"),
    _filled("nodes_cancelled", Integer, "0"),
    Column("exit_code", Integer),
    _filled("shard", SmallInteger),
    _filled("attempt", SmallInteger, "1"),
    _filled("status", Text),
    _filled("project", Text),
    _filled("workflow", Text),
    Column("given_id", Text),
    Column("parent_run", Text),
    Column("trigger_type", Text),
    Column("user", Text),
    Column("session", Text),
    Column("tags", JSONB),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("error_node", Text),
    Column("aged_at", _TIME),
    _derived(
        "unusual_status",
        Text,
        "CASE WHEN (status = ANY (ARRAY['failed'::text, 'cancelled'::text, 'lost'::text])) "
        "THEN status ELSE NULL::text END",
    ),
    _fingerprint("error_node"),
    _derived(
        "late_started_at",
        _TIME,
        "CASE WHEN ((started_at - created_at) > '01:00:00'::interval) "
        "THEN started_at ELSE NULL::timestamp with time zone END",
    ),
    _derived(
        "long_duration_us",
        BigInteger,
        "CASE WHEN (duration_us >= 60000000) THEN duration_us ELSE NULL::bigint END",
    ),
    _derived(
        "high_cost_nano_usd",
        BigInteger,
        "CASE WHEN (cost_nano_usd >= 100000000) THEN cost_nano_usd ELSE NULL::bigint END",
    ),
    PrimaryKeyConstraint("shard", "run"),
    CheckConstraint(_one_of(RUN_STATUSES), name="status"),
    postgresql_with=_ROOM_FOR_HOT_UPDATES,
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
    _filled("run", Uuid),
    Column("started_at", _TIME),
    Column("finished_at", _TIME),
    Column("duration_us", BigInteger),
    _filled("input_tokens", BigInteger, "0"),
    _filled("output_tokens", BigInteger, "0"),
    _filled("cost_nano_usd", BigInteger, "0"),
    _filled("shard", SmallInteger),
    _filled("attempt", SmallInteger),
    _filled("node", Text),
    _filled("name", Text),
    _filled("status", Text),
    Column("node_type", Text),
    Column("parents", ARRAY(Text)),
    Column("error_type", Text),
    Column("error_message", Text),
    _fingerprint("node"),
    PrimaryKeyConstraint("shard", "run", "node", "attempt"),
    CheckConstraint(_one_of(NODE_STATUSES), name="status"),
    postgresql_with=_ROOM_FOR_HOT_UPDATES,
)
Index(None, nodes.c.finished_at, postgresql_where=nodes.c.fingerprint.is_not(None))

# Rollups, as sums of differences. `node` is '' for the runs themselves; `hour` is that of the
# run's first event; `bins` and `bin_counts` are a histogram of durations (see `histogram`).
stats = Table(
    "stats",
    metadata,
    _filled("hour", _TIME),
    _filled("n", BigInteger, "0"),
    _filled("n_timed", BigInteger, "0"),
    Column("duration_min_us", BigInteger),
    Column("duration_max_us", BigInteger),
    _filled("duration_sum_us", Numeric, "0"),
    _filled("input_tokens", Numeric, "0"),
    _filled("output_tokens", Numeric, "0"),
    _filled("cost_nano_usd", Numeric, "0"),
    _filled("shard", SmallInteger),
    _filled("project", Text),
    _filled("workflow", Text),
    _filled("node", Text),
    _filled("status", Text),
    _filled("bins", ARRAY(SmallInteger), "'{}'"),
    _filled("bin_counts", ARRAY(BigInteger), "'{}'"),
    _derived(
        "is_open",
        Boolean,
        "CASE WHEN ((n > 0) AND (node = ''::text) AND "
        "(status = ANY (ARRAY['queued'::text, 'running'::text]))) "
        "THEN true ELSE NULL::boolean END",
    ),
    PrimaryKeyConstraint("workflow", "project", "node", "hour", "status", "shard"),
    postgresql_with=_ROOM_FOR_HOT_UPDATES,
)
# The hours in which runs began that have not ended.
Index(None, stats.c.status, stats.c.hour, postgresql_where=stats.c.is_open)

# All of an hour, for spans that do not begin or end with a day.
Index(None, stats.c.hour, postgresql_where=text("node = ''"))

# The same of runs by UTC day, all statuses in one row: what counts and a month's figures are read
# from. `workflow` is '' for a whole project, and `project` too for all of them.
stats_days = Table(
    "stats_days",
    metadata,
    _filled("day", _TIME),
    *(_filled(status, BigInteger, "0") for status in RUN_STATUSES),
    _filled("n_timed", BigInteger, "0"),
    Column("duration_min_us", BigInteger),
    Column("duration_max_us", BigInteger),
    _filled("duration_sum_us", Numeric, "0"),
    _filled("input_tokens", Numeric, "0"),
    _filled("output_tokens", Numeric, "0"),
    _filled("cost_nano_usd", Numeric, "0"),
    _filled("shard", SmallInteger),
    _filled("project", Text),
    _filled("workflow", Text),
    _filled("bins", ARRAY(SmallInteger), "'{}'"),
    _filled("bin_counts", ARRAY(BigInteger), "'{}'"),
    PrimaryKeyConstraint("workflow", "project", "day", "shard"),
    postgresql_with=_ROOM_FOR_HOT_UPDATES,
)

# How far each shard has come. `position` moves by compare-and-set, `generation` is raised by
# whoever changes projections behind the worker's back, so that its memory is dropped.
positions = Table(
    "positions",
    metadata,
    _filled("consumed", BigInteger, "0"),
    _filled("feed_seq", BigInteger, "0"),
    _filled("generation", BigInteger, "0"),
    _filled("updated_at", _TIME, "now()"),
    Column("folded_at", _TIME),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    _filled("position", Text, "'0-0'"),
    postgresql_with={"fillfactor": 50},
)

# Which runs changed: `runs` holds 17 bytes for each of the numbers that end with `feed_seq`, a flag
# and the run's key; `gone` has the ids of those that were deleted. See `changes`.
changes = Table(
    "changes",
    metadata,
    _filled("feed_seq", BigInteger),
    _filled("changed_at", _TIME, "now()"),
    _filled("shard", SmallInteger),
    _filled("runs", LargeBinary),
    Column("gone", ARRAY(Text)),
    PrimaryKeyConstraint("shard", "feed_seq"),
)

# Who folds a shard: for efficiency only, `positions` is what makes it exact.
leases = Table(
    "leases",
    metadata,
    _filled("expires_at", _TIME),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    _filled("owner", Text),
    postgresql_with={"fillfactor": 50},
)

# Workers that are known to each other, so that each takes its share of the leases.
workers = Table(
    "workers",
    metadata,
    _filled("joined_at", _TIME, "now()"),
    _filled("expires_at", _TIME),
    Column("owner", Text, primary_key=True),
    postgresql_with={"fillfactor": 50},
)

# What must not happen and did (see `incidents`): how much in all, how much of it an operator has
# taken note of, and when last. `shard` is -1 for what is of the whole deployment.
incidents = Table(
    "incidents",
    metadata,
    _filled("number", BigInteger),
    _filled("acknowledged", BigInteger, "0"),
    _filled("happened_at", _TIME, "now()"),
    _filled("shard", SmallInteger),
    _filled("kind", Text),
    PrimaryKeyConstraint("kind", "shard"),
)

# How many frames each stream had been given when last looked at: the only witness of what a Redis
# had that was flushed or restored. Not in `positions`, whose rows batches hold locked.
sightings = Table(
    "sightings",
    metadata,
    _filled("added", BigInteger),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    postgresql_with={"fillfactor": 50},
)

# How far the changes of a shard had come at a moment when all of its stream was folded, by how long
# somebody had listened until then: tells which runs have been silent, see `silence`.
pulses = Table(
    "pulses",
    metadata,
    _filled("heard_us", BigInteger),
    _filled("feed_seq", BigInteger),
    _filled("at", _TIME),
    _filled("shard", SmallInteger),
    PrimaryKeyConstraint("shard", "heard_us"),
)

# What could not be understood: `frame` is the stream entry's id, `ordinal` the place inside it.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _filled("created_at", _TIME, "now()"),
    _filled("ordinal", Integer),
    _filled("shard", SmallInteger),
    _filled("frame", Text),
    _filled("reason", Text),
    _filled("raw", LargeBinary),
    UniqueConstraint("shard", "frame", "ordinal"),
)

# Runs that were deleted, so that late events do not revive them. Their events go last: until then
# `events_left` is true. Those that retention took away are `aged`: their figures stay. The archive
# is told of the others, which then are `archived`.
tombstones = Table(
    "tombstones",
    metadata,
    _filled("run", Uuid),
    _filled("deleted_at", _TIME, "now()"),
    _filled("shard", SmallInteger),
    _filled("events_left", Boolean, "false"),
    _filled("aged", Boolean, "false"),
    _filled("archived", Boolean, "false"),
    PrimaryKeyConstraint("shard", "run"),
)
Index(
    "tombstones_events_left_idx",
    tombstones.c.shard,
    tombstones.c.run,
    postgresql_where=tombstones.c.events_left,
)

# How long what is kept, by project; '' stands for all that have no row. Null: for ever.
retention = Table(
    "retention",
    metadata,
    _filled("updated_at", _TIME, "now()"),
    Column("payload_days", Integer),
    Column("run_days", Integer),
    Column("stats_days", Integer),
    Column("project", Text, primary_key=True),
)

# Hours of which retention has taken rows away: `stats` says more there than can be added up.
aged_hours = Table(
    "aged_hours",
    metadata,
    _filled("hour", _TIME),
    _filled("project", Text),
    PrimaryKeyConstraint("project", "hour"),
)

# What is being written to the archive, and goes once it is there: `runs` of a shard, a `week` of
# the ledger, `rollups`; see `archive.steps`.
archive_steps = Table(
    "archive_steps",
    metadata,
    Column("token", Uuid, primary_key=True),
    _filled("began_at", _TIME, "now()"),
    Column("week", Date),
    Column("shard", SmallInteger),
    _filled("written", Boolean, "false"),
    _filled("kind", Text),
    _filled("runs", ARRAY(Uuid)),
    _filled("rollups", JSONB),
)

# Who may call the API; the key itself is never stored.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _filled("created_at", _TIME, "now()"),
    Column("revoked_at", _TIME),
    Column("project", Text),
    _filled("may_write", Boolean, "false"),
    _filled("name", Text),
    _filled("key_sha256", LargeBinary),
    UniqueConstraint("key_sha256"),
)

# Work that takes long: the truth about it. `progress` is noted after each step, which may be done
# twice; `error` says why it failed. Workers take up what is for the `background`; the rest is done
# by the command that someone waits for.
jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    _filled("created_at", _TIME, "now()"),
    Column("started_at", _TIME),
    Column("finished_at", _TIME),
    _filled("kind", Text),
    _filled("status", Text, "'queued'"),
    _filled("arguments", JSONB),
    Column("progress", JSONB),
    Column("result", JSONB),
    Column("error", Text),
    _filled("background", Boolean, "false"),
    CheckConstraint(
        "status IN ('queued', 'running', 'completed', 'failed', 'cancelled')", name="status"
    ),
)
Index(None, jobs.c.created_at)
