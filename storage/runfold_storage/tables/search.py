"""The search index: derived from `runs` and the ledger after the fold.

No transaction of the fold writes here; `search.indexer` does.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)

from .columns import TIME, filled, metadata

_TRIGRAMS: Final[dict[str, Any]] = {
    "postgresql_using": "gin",
    "postgresql_ops": {"text": "gin_trgm_ops"},
}

# The texts that `q` searches, in lower case. The index is missing where PostgreSQL has no pg_trgm.
search_runs = Table(
    "search_runs",
    metadata,
    filled("run", Uuid),
    filled("shard", SmallInteger),
    filled("text", Text),
    PrimaryKeyConstraint("shard", "run"),
)
Index(None, search_runs.c.text, **_TRIGRAMS)

# Inputs and outputs of ended runs, in lower case, for projects that have payload search enabled.
search_payloads = Table(
    "search_payloads",
    metadata,
    filled("run", Uuid),
    filled("shard", SmallInteger),
    filled("project", Text),
    filled("text", Text),
    PrimaryKeyConstraint("shard", "run"),
)
Index(None, search_payloads.c.text, **_TRIGRAMS)
Index(None, search_payloads.c.project)

# How far the index has come: it has every change of a run up to `change_seq`, the last of which was
# committed at `changed_at`. During a scan of the runs by key, `scan_target_seq` is the number that
# the index will have reached after it, and `scan_key` the last run that was read.
search_progress = Table(
    "search_progress",
    metadata,
    filled("change_seq", BigInteger, "0"),
    Column("scan_target_seq", BigInteger),
    Column("changed_at", TIME),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    Column("scan_key", Uuid),
    postgresql_with={"fillfactor": 50},
)

# Projects with payload search. `enabled` is false while the rows of a disabled project are being
# deleted. Older runs are backfilled, newest first: all from `backfill_at` on are in the index.
search_projects = Table(
    "search_projects",
    metadata,
    filled("enabled_since", TIME, "now()"),
    Column("backfill_at", TIME),
    Column("backfill_run", Uuid),
    filled("enabled", Boolean, "true"),
    filled("backfilled", Boolean, "false"),
    Column("project", Text, primary_key=True),
)
