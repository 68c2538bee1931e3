"""The ledger, and what takes no part in it: what could not be understood, what was deleted."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Enum,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from runfold.protocol.codec import TYPES

from .columns import TIME, filled, metadata

# The ledger: the source of truth. `body` is the JSON text of all fields but the envelope's.
# Partitioned by week on the run id, which is time-ordered; see `partitions`.
events = Table(
    "events",
    metadata,
    filled("run", Uuid),
    filled("id", BigInteger),
    filled("at", TIME),
    filled("type", Enum(*TYPES, name="event_type")),
    filled("shard", SmallInteger),
    filled("body", Text),
    PrimaryKeyConstraint("shard", "run", "id"),
    postgresql_partition_by="RANGE (run)",
)

# What could not be understood: `frame` is the stream entry's id, `ordinal` the place inside it.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    filled("created_at", TIME, "now()"),
    filled("ordinal", Integer),
    filled("shard", SmallInteger),
    filled("frame", Text),
    filled("reason", Text),
    filled("raw", LargeBinary),
    UniqueConstraint("shard", "frame", "ordinal"),
)

# Runs that were deleted, so that late events do not revive them. Their events go last: until then
# `events_left` is true. Those that retention took away are `aged`: their figures stay. The archive
# is told of the others, which then are `archived`.
tombstones = Table(
    "tombstones",
    metadata,
    filled("run", Uuid),
    filled("deleted_at", TIME, "now()"),
    filled("shard", SmallInteger),
    filled("events_left", Boolean, "false"),
    filled("aged", Boolean, "false"),
    filled("archived", Boolean, "false"),
    PrimaryKeyConstraint("shard", "run"),
)
Index(
    "tombstones_events_left_idx",
    tombstones.c.shard,
    tombstones.c.run,
    postgresql_where=tombstones.c.events_left,
)
