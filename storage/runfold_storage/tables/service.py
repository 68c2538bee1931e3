"""What works beside the fold: jobs, retention, the journal of the archive, the search index."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from .columns import TIME, filled, nullable, table

# Long-running work. Workers take `background` jobs; commands run the others themselves.
jobs = table(
    "jobs",
    ("id",),
    *filled(sa.Uuid, "id"),
    *filled(TIME, "created_at", default="now()"),
    *nullable(TIME, "started_at", "finished_at"),
    *filled(sa.Text, "kind"),
    *filled(sa.Text, "status", default="'queued'"),
    *filled(JSONB, "arguments"),
    *nullable(JSONB, "progress", "result"),
    *nullable(sa.Text, "error"),
    *filled(sa.Boolean, "background", default="false"),
)
sa.Index(None, jobs.c.created_at)

# Retention policies in days by project; '' is the default for all projects without a row. Null
# keeps data for ever. A stricter policy applies from `holds_from` on.
retention = table(
    "retention",
    ("project",),
    *filled(TIME, "holds_from", default="now()"),
    *nullable(sa.Integer, "payload_days", "run_days", "stats_days"),
    *filled(sa.Text, "project"),
)

# Hours of which retention deleted rows: `rollups_hourly` counts more there than the rows add up to.
expired_hours = table(
    "expired_hours",
    ("project", "hour"),
    *filled(TIME, "hour"),
    *filled(sa.Text, "project"),
)

# Steps of the archive (`archive.journal`): `runs` of a shard, a `week` of the ledger, or `rollups`.
archive_journal = table(
    "archive_journal",
    ("token",),
    *filled(sa.Uuid, "token"),
    *filled(TIME, "began_at", default="now()"),
    *nullable(sa.Date, "week"),
    *nullable(sa.SmallInteger, "shard"),
    *filled(sa.Boolean, "is_written", default="false"),
    *filled(sa.Text, "kind"),
    *filled(ARRAY(sa.Uuid), "runs"),
    *filled(JSONB, "rollups"),
)

# The search index is derived from `runs` and the ledger by `search.indexer`, after the fold; its
# trigram indexes are missing where PostgreSQL has no pg_trgm.
_TRIGRAMS: Final[dict[str, Any]] = {
    "postgresql_using": "gin",
    "postgresql_ops": {"text": "gin_trgm_ops"},
}

# The texts that `q` searches, in lower case.
search_runs = table(
    "search_runs",
    ("shard", "run"),
    *filled(sa.Uuid, "run"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "text"),
)
sa.Index(None, search_runs.c.text, **_TRIGRAMS)

# Inputs and outputs of ended runs, in lower case, for projects that have payload search enabled.
search_payloads = table(
    "search_payloads",
    ("shard", "run"),
    *filled(sa.Uuid, "run"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "project", "text"),
)
sa.Index(None, search_payloads.c.text, **_TRIGRAMS)
sa.Index(None, search_payloads.c.project)

# The index has every change of a run up to `change_seq`, committed at `changed_at`. In a scan of
# the runs by key, `scan_target_seq` is what it will have reached, `scan_key` the last run read.
search_progress = table(
    "search_progress",
    ("shard",),
    *filled(sa.BigInteger, "change_seq", default="0"),
    *nullable(sa.BigInteger, "scan_target_seq"),
    *nullable(TIME, "changed_at"),
    *filled(sa.SmallInteger, "shard"),
    *nullable(sa.Uuid, "scan_key"),
)

# Projects with payload search. `enabled` is false while the rows of a disabled project are being
# deleted. Older runs are backfilled, newest first: all from `backfill_at` on are in the index.
search_projects = table(
    "search_projects",
    ("project",),
    *filled(TIME, "enabled_since", default="now()"),
    *nullable(TIME, "backfill_at"),
    *nullable(sa.Uuid, "backfill_run"),
    *filled(sa.Boolean, "enabled", default="true"),
    *filled(sa.Boolean, "backfilled", default="false"),
    *filled(sa.Text, "project"),
)
