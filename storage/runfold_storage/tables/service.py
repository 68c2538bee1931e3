"""Background jobs."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from .columns import TIME, filled, metadata

# Long-running work. `progress` is saved after each step, and a step may be repeated; `error` says
# why the job failed. Workers take `background` jobs; the others run in the command that created
# them.
jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    filled("created_at", TIME, "now()"),
    Column("started_at", TIME),
    Column("finished_at", TIME),
    filled("kind", Text),
    filled("status", Text, "'queued'"),
    filled("arguments", JSONB),
    Column("progress", JSONB),
    Column("result", JSONB),
    Column("error", Text),
    filled("background", Boolean, "false"),
    CheckConstraint(
        "status IN ('queued', 'running', 'completed', 'failed', 'cancelled')", name="status"
    ),
)
Index(None, jobs.c.created_at)
