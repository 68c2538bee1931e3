"""How far the fold has come, which worker folds which shard, and which runs changed."""

from sqlalchemy import (
    BigInteger,
    Column,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from .columns import TIME, filled, metadata

# The checkpoint of each shard. `position` moves by compare-and-set. `generation` is raised by every
# other process that changes projections, so that the worker drops its cache.
positions = Table(
    "positions",
    metadata,
    filled("consumed", BigInteger, "0"),
    filled("change_seq", BigInteger, "0"),
    filled("generation", BigInteger, "0"),
    filled("updated_at", TIME, "now()"),
    Column("folded_at", TIME),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    filled("position", Text, "'0-0'"),
    postgresql_with={"fillfactor": 50},
)

# Which runs changed: `runs` holds 17 bytes for each of the numbers that end with `change_seq`, a
# flag and the run's key; `deleted_ids` has the ids of deleted runs. See `checkpoints.change_log`.
changes = Table(
    "changes",
    metadata,
    filled("change_seq", BigInteger),
    filled("changed_at", TIME, "now()"),
    filled("shard", SmallInteger),
    filled("runs", LargeBinary),
    Column("deleted_ids", ARRAY(Text)),
    PrimaryKeyConstraint("shard", "change_seq"),
)

# Which worker folds a shard. Leases avoid duplicate work; exactness comes from `positions`.
leases = Table(
    "leases",
    metadata,
    filled("expires_at", TIME),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    filled("owner", Text),
    postgresql_with={"fillfactor": 50},
)

# The live workers, so that each takes its share of the leases.
workers = Table(
    "workers",
    metadata,
    filled("joined_at", TIME, "now()"),
    filled("expires_at", TIME),
    Column("owner", Text, primary_key=True),
    postgresql_with={"fillfactor": 50},
)

# Losses and refusals that must not happen (see `checkpoints.incidents`): how often or how much, how
# much of it an operator has acknowledged, and when it last happened. `shard` is -1 for incidents of
# the whole deployment.
incidents = Table(
    "incidents",
    metadata,
    filled("count", BigInteger),
    filled("acknowledged", BigInteger, "0"),
    filled("happened_at", TIME, "now()"),
    filled("shard", SmallInteger),
    filled("kind", Text),
    PrimaryKeyConstraint("kind", "shard"),
)

# How many frames each stream had received when it was last read: the only record of what Redis held
# before it was flushed or restored. Not in `positions`, whose rows batches keep locked.
stream_checkpoints = Table(
    "stream_checkpoints",
    metadata,
    filled("entries_added", BigInteger),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    postgresql_with={"fillfactor": 50},
)

# How far the changes of a shard had come at a moment when its whole stream was folded, by how long
# workers had listened until then. Shows which runs have been silent: see `checkpoints.liveness`.
liveness_marks = Table(
    "liveness_marks",
    metadata,
    filled("listened_us", BigInteger),
    filled("change_seq", BigInteger),
    filled("marked_at", TIME),
    filled("shard", SmallInteger),
    PrimaryKeyConstraint("shard", "listened_us"),
)
