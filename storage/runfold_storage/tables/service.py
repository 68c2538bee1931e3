"""Who may call, and work that takes long."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from .columns import TIME, filled, metadata

# Who may call the API; the key itself is never stored.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    filled("created_at", TIME, "now()"),
    Column("revoked_at", TIME),
    Column("project", Text),
    filled("may_write", Boolean, "false"),
    filled("name", Text),
    filled("key_sha256", LargeBinary),
    UniqueConstraint("key_sha256"),
)

# Work that takes long: the truth about it. `progress` is noted after each step, which may be done
# twice; `error` says why it failed. Workers take up what is for the `background`; the rest is done
# by the command that someone waits for.
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
