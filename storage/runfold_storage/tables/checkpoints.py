"""How far the fold has come, who folds, and what watchers are told."""

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

# How far each shard has come. `position` moves by compare-and-set, `generation` is raised by
# whoever changes projections behind the worker's back, so that its memory is dropped.
positions = Table(
    "positions",
    metadata,
    filled("consumed", BigInteger, "0"),
    filled("feed_seq", BigInteger, "0"),
    filled("generation", BigInteger, "0"),
    filled("updated_at", TIME, "now()"),
    Column("folded_at", TIME),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    filled("position", Text, "'0-0'"),
    postgresql_with={"fillfactor": 50},
)

# Which runs changed: `runs` holds 17 bytes for each of the numbers that end with `feed_seq`, a flag
# and the run's key; `gone` has the ids of those that were deleted. See `changes`.
changes = Table(
    "changes",
    metadata,
    filled("feed_seq", BigInteger),
    filled("changed_at", TIME, "now()"),
    filled("shard", SmallInteger),
    filled("runs", LargeBinary),
    Column("gone", ARRAY(Text)),
    PrimaryKeyConstraint("shard", "feed_seq"),
)

# Who folds a shard: for efficiency only, `positions` is what makes it exact.
leases = Table(
    "leases",
    metadata,
    filled("expires_at", TIME),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    filled("owner", Text),
    postgresql_with={"fillfactor": 50},
)

# Workers that are known to each other, so that each takes its share of the leases.
workers = Table(
    "workers",
    metadata,
    filled("joined_at", TIME, "now()"),
    filled("expires_at", TIME),
    Column("owner", Text, primary_key=True),
    postgresql_with={"fillfactor": 50},
)

# What must not happen and did (see `incidents`): how much in all, how much of it an operator has
# taken note of, and when last. `shard` is -1 for what is of the whole deployment.
incidents = Table(
    "incidents",
    metadata,
    filled("number", BigInteger),
    filled("acknowledged", BigInteger, "0"),
    filled("happened_at", TIME, "now()"),
    filled("shard", SmallInteger),
    filled("kind", Text),
    PrimaryKeyConstraint("kind", "shard"),
)

# How many frames each stream had been given when last looked at: the only witness of what a Redis
# had that was flushed or restored. Not in `positions`, whose rows batches hold locked.
sightings = Table(
    "sightings",
    metadata,
    filled("added", BigInteger),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    postgresql_with={"fillfactor": 50},
)

# How far the changes of a shard had come at a moment when all of its stream was folded, by how long
# somebody had listened until then: tells which runs have been silent, see `silence`.
pulses = Table(
    "pulses",
    metadata,
    filled("heard_us", BigInteger),
    filled("feed_seq", BigInteger),
    filled("at", TIME),
    filled("shard", SmallInteger),
    PrimaryKeyConstraint("shard", "heard_us"),
)
