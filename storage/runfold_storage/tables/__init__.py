"""Every table, as it should be. Migrations lead there; a test compares the two.

Keys begin with the shard, which follows from the run id, so that a deployment can distribute
tables by it. Columns are ordered to avoid padding.
"""

from .checkpoints import changes, incidents, leases, positions, pulses, sightings, workers
from .columns import metadata
from .ledger import dead_letters, events, tombstones
from .retention import aged_hours, archive_steps, retention
from .rollups import stats, stats_days, stats_differences, stats_merged, unmerged_stats
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
from .service import api_keys, jobs

__all__ = [
    "COSTLY_NANO_USD",
    "LATE_AFTER",
    "LONG_US",
    "NODE_STATUSES",
    "RUN_STATUSES",
    "UNUSUAL_STATUSES",
    "aged_hours",
    "api_keys",
    "archive_steps",
    "changes",
    "dead_letters",
    "events",
    "incidents",
    "jobs",
    "leases",
    "metadata",
    "nodes",
    "positions",
    "pulses",
    "retention",
    "runs",
    "search_payloads",
    "search_progress",
    "search_projects",
    "search_runs",
    "sightings",
    "stats",
    "stats_days",
    "stats_differences",
    "stats_merged",
    "tombstones",
    "unmerged_stats",
    "workers",
]
