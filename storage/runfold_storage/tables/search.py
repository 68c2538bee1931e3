"""The tables of the search index: derived from `runs` and the ledger, behind the fold.

No transaction of the fold writes here. Who writes, and how far it has come: `search_index`.
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

# What `q` is looked for in, in lower case. The index is missing where PostgreSQL has no pg_trgm.
search_runs = Table(
    "search_runs",
    metadata,
    filled("run", Uuid),
    filled("shard", SmallInteger),
    filled("text", Text),
    PrimaryKeyConstraint("shard", "run"),
)
Index(None, search_runs.c.text, **_TRIGRAMS)

# Inputs and outputs of runs that have ended, in lower case, of projects that have it switched on.
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

# How far the index has come: every change of a run up to `feed_seq` is in it, the last of which was
# committed at `changed_at`. While runs are read one after the other instead, `scan_to` says which
# number that will be good for, and `scanned` which run was the last.
search_progress = Table(
    "search_progress",
    metadata,
    filled("feed_seq", BigInteger, "0"),
    Column("scan_to", BigInteger),
    Column("changed_at", TIME),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    Column("scanned", Uuid),
    postgresql_with={"fillfactor": 50},
)

# Projects whose payloads are searched, or were (`wanted` is false until the last of them is gone).
# Runs of the time before it was switched on follow, newest first: all up to `reached_at` are in.
search_projects = Table(
    "search_projects",
    metadata,
    filled("wanted_since", TIME, "now()"),
    Column("reached_at", TIME),
    Column("reached_run", Uuid),
    filled("wanted", Boolean, "true"),
    filled("whole", Boolean, "false"),
    Column("project", Text, primary_key=True),
)
