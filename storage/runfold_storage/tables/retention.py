"""Retention policies, hours with expired runs, and the journal of the archive."""

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

# Retention policies in days by project; '' is the default for all projects without a row. Null
# keeps data for ever. A stricter policy applies from `holds_from` on.
retention = Table(
    "retention",
    metadata,
    filled("holds_from", TIME, "now()"),
    Column("payload_days", Integer),
    Column("run_days", Integer),
    Column("stats_days", Integer),
    Column("project", Text, primary_key=True),
)

# Hours of which retention deleted rows: `rollups_hourly` counts more there than the rows add up to.
expired_hours = Table(
    "expired_hours",
    metadata,
    filled("hour", TIME),
    filled("project", Text),
    PrimaryKeyConstraint("project", "hour"),
)

# Steps of the archive: what is written there first and deleted here afterwards. A step is about
# `runs` of a shard, a `week` of the ledger, or `rollups`; see `archive.journal`.
archive_journal = Table(
    "archive_journal",
    metadata,
    Column("token", Uuid, primary_key=True),
    filled("began_at", TIME, "now()"),
    Column("week", Date),
    Column("shard", SmallInteger),
    filled("is_written", Boolean, "false"),
    filled("kind", Text),
    filled("runs", ARRAY(Uuid)),
    filled("rollups", JSONB),
)
