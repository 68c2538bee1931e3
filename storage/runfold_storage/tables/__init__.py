"""The declared tables. Migrations create them; a test compares the two.

The ledger (`events`) is the source of truth. `runs`, `nodes` and the rollups are projections of it,
and the search tables are derived from those. `positions` says how far each shard is folded; a batch
of the fold changes the position, the ledger and the projections in one transaction.

Keys of rows about runs begin with the shard, which follows from the run id, so that a deployment
can distribute tables by it. Columns are ordered to avoid padding.
"""

from .checkpoints import (
    changes,
    incidents,
    leases,
    liveness_marks,
    positions,
    stream_checkpoints,
    workers,
)
from .columns import metadata
from .ledger import dead_letters, events, tombstones
from .retention import archive_journal, expired_hours, retention
from .rollups import (
    pending_rollups,
    rollup_delta_cursors,
    rollup_deltas,
    rollups_daily,
    rollups_hourly,
)
from .runs import (
    COSTLY_NANO_USD,
    LATE_AFTER,
    LONG_US,
    NODE_STATUSES,
    RUN_STATUSES,
    UNUSUAL_STATUSES,
    nodes,
    runs,
)
from .search import search_payloads, search_progress, search_projects, search_runs
from .service import jobs

__all__ = [
    "COSTLY_NANO_USD",
    "LATE_AFTER",
    "LONG_US",
    "NODE_STATUSES",
    "RUN_STATUSES",
    "UNUSUAL_STATUSES",
    "archive_journal",
    "changes",
    "dead_letters",
    "events",
    "expired_hours",
    "incidents",
    "jobs",
    "leases",
    "liveness_marks",
    "metadata",
    "nodes",
    "pending_rollups",
    "positions",
    "retention",
    "rollup_delta_cursors",
    "rollup_deltas",
    "rollups_daily",
    "rollups_hourly",
    "runs",
    "search_payloads",
    "search_progress",
    "search_projects",
    "search_runs",
    "stream_checkpoints",
    "tombstones",
    "workers",
]
