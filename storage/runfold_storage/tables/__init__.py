"""The declared tables. Migrations create them; a test compares the two.

The ledger (`events`) is the source of truth. `runs`, `nodes` and the rollups are projections of it,
and the search tables are derived from those. `positions` says how far each shard is folded; a batch
of the fold changes the position, the ledger and the projections in one transaction.

Keys of rows about runs begin with the shard, which follows from the run id, so that a deployment
can distribute tables by it.
"""

from . import fold, rollups, service
from .columns import metadata
from .runs import COSTLY_NANO_USD, LATE_AFTER, LONG_US, RUN_STATUSES, UNUSUAL_STATUSES, nodes, runs

__all__ = [
    "COSTLY_NANO_USD",
    "LATE_AFTER",
    "LONG_US",
    "RUN_STATUSES",
    "UNUSUAL_STATUSES",
    "fold",
    "metadata",
    "nodes",
    "rollups",
    "runs",
    "service",
]
