"""How the images of runs and nodes replace those that are in the tables."""

from typing import Final

from .encoding import NODE_FIELDS, RUN_FIELDS
from .upserts import Upsert

RUNS: Final = Upsert(
    "runs",
    RUN_FIELDS,
    ("shard", "run"),
    # The ledger keeps no heartbeats, so a run that is folded again has forgotten them.
    merged={"seen_at": "greatest(runs.seen_at, excluded.seen_at)"},
)
NODES: Final = Upsert("nodes", NODE_FIELDS, ("shard", "run", "node", "attempt"))
