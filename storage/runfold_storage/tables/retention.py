"""How long what is kept, and what is being archived."""

from sqlalchemy import (
    Boolean,
    Column,
    Date,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from .columns import TIME, filled, metadata

# How long what is kept, by project; '' stands for all that have no row. Null: for ever. A policy
# that became stricter waits until `holds_from`.
retention = Table(
    "retention",
    metadata,
    filled("holds_from", TIME, "now()"),
    Column("payload_days", Integer),
    Column("run_days", Integer),
    Column("stats_days", Integer),
    Column("project", Text, primary_key=True),
)

# Hours of which retention has taken rows away: `stats` says more there than can be added up.
aged_hours = Table(
    "aged_hours",
    metadata,
    filled("hour", TIME),
    filled("project", Text),
    PrimaryKeyConstraint("project", "hour"),
)

# What is being written to the archive, and goes once it is there: `runs` of a shard, a `week` of
# the ledger, `rollups`; see `archive.steps`.
archive_steps = Table(
    "archive_steps",
    metadata,
    Column("token", Uuid, primary_key=True),
    filled("began_at", TIME, "now()"),
    Column("week", Date),
    Column("shard", SmallInteger),
    filled("written", Boolean, "false"),
    filled("kind", Text),
    filled("runs", ARRAY(Uuid)),
    filled("rollups", JSONB),
)
