"""The ledger, the dead letters and the tombstones of deleted runs."""

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

# The ledger: the source of truth. `body` is the JSON text of all fields outside the envelope.
# Partitioned by week on the run key, which is time-ordered; see `ledger.partitions`.
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

# Events that could not be decoded: `frame` is the stream entry's id, `ordinal` the index inside it.
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

# Deleted runs, so that late events do not revive them. Their events are deleted last: until then
# `events_left` is true. `is_expiry` marks runs that retention deleted, which still count in the
# statistics. All others are recorded in the archive, too, if there is one: `archived`.
tombstones = Table(
    "tombstones",
    metadata,
    filled("run", Uuid),
    filled("deleted_at", TIME, "now()"),
    filled("shard", SmallInteger),
    filled("events_left", Boolean, "false"),
    filled("is_expiry", Boolean, "false"),
    filled("archived", Boolean, "false"),
    PrimaryKeyConstraint("shard", "run"),
)
Index(
    "tombstones_events_left_idx",
    tombstones.c.shard,
    tombstones.c.run,
    postgresql_where=tombstones.c.events_left,
)
