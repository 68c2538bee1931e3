"""The ledger, and how far it is folded: positions, leases, changes, incidents."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from runfold.protocol.codec import TYPES

from .columns import MUCH_ROOM, TIME, filled, metadata, nullable

# The ledger: the source of truth. `body` is the JSON text of all fields outside the envelope.
# Partitioned by week on the run key, which is time-ordered; see `ledger.partitions`.
events = sa.Table(
    "events",
    metadata,
    *filled(sa.Uuid, "run"),
    *filled(sa.BigInteger, "id"),
    *filled(TIME, "at"),
    *filled(sa.Enum(*TYPES, name="event_type"), "type"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "body"),
    sa.PrimaryKeyConstraint("shard", "run", "id"),
    postgresql_partition_by="RANGE (run)",
)

# Events that could not be decoded: `frame` is the stream entry's id, `ordinal` the index inside it.
dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    *filled(TIME, "created_at", default="now()"),
    *filled(sa.Integer, "ordinal"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "frame", "reason"),
    *filled(sa.LargeBinary, "raw"),
    sa.UniqueConstraint("shard", "frame", "ordinal"),
)

# Deleted runs, so that late events do not revive them. Their events are deleted last: until then
# `events_left` is true. `is_expiry` marks runs that retention deleted, which still count in the
# statistics. All others are recorded in the archive, too, if there is one: `archived`.
tombstones = sa.Table(
    "tombstones",
    metadata,
    *filled(sa.Uuid, "run"),
    *filled(TIME, "deleted_at", default="now()"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Boolean, "events_left", "is_expiry", "archived", default="false"),
    sa.PrimaryKeyConstraint("shard", "run"),
)
sa.Index(
    "tombstones_events_left_idx",
    *(tombstones.c.shard, tombstones.c.run),
    postgresql_where=tombstones.c.events_left,
)

# The checkpoint of each shard. `position` moves by compare-and-set. `generation` is raised by every
# other process that changes projections, so that the worker drops its cache.
positions = sa.Table(
    "positions",
    metadata,
    *filled(sa.BigInteger, "consumed", "change_seq", "generation", default="0"),
    *filled(TIME, "updated_at", default="now()"),
    *nullable(TIME, "folded_at"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "position", default="'0-0'"),
    sa.PrimaryKeyConstraint("shard"),
    postgresql_with=MUCH_ROOM,
)

# Which runs changed: `runs` holds 17 bytes for each of the numbers that end with `change_seq`, a
# flag and the run's key; `deleted_ids` has the ids of deleted runs. See `checkpoints.change_log`.
changes = sa.Table(
    "changes",
    metadata,
    *filled(sa.BigInteger, "change_seq"),
    *filled(TIME, "changed_at", default="now()"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.LargeBinary, "runs"),
    *nullable(ARRAY(sa.Text), "deleted_ids"),
    sa.PrimaryKeyConstraint("shard", "change_seq"),
)

# Which worker folds a shard. Leases avoid duplicate work; exactness comes from `positions`.
leases = sa.Table(
    "leases",
    metadata,
    *filled(TIME, "expires_at"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "owner"),
    sa.PrimaryKeyConstraint("shard"),
    postgresql_with=MUCH_ROOM,
)

# The live workers, so that each takes its share of the leases.
workers = sa.Table(
    "workers",
    metadata,
    *filled(TIME, "joined_at", default="now()"),
    *filled(TIME, "expires_at"),
    *filled(sa.Text, "owner"),
    sa.PrimaryKeyConstraint("owner"),
    postgresql_with=MUCH_ROOM,
)

# Losses and refusals that must not happen (see `checkpoints.incidents`): how often or how much, how
# much of it an operator has acknowledged, and when it last happened. `shard` is -1 for incidents of
# the whole deployment.
incidents = sa.Table(
    "incidents",
    metadata,
    *filled(sa.BigInteger, "count"),
    *filled(sa.BigInteger, "acknowledged", default="0"),
    *filled(TIME, "happened_at", default="now()"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "kind"),
    sa.PrimaryKeyConstraint("kind", "shard"),
)

# How many frames each stream had received when it was last read: the only record of what Redis held
# before it was flushed or restored. Not in `positions`, whose rows batches keep locked.
stream_checkpoints = sa.Table(
    "stream_checkpoints",
    metadata,
    *filled(sa.BigInteger, "entries_added"),
    *filled(sa.SmallInteger, "shard"),
    sa.PrimaryKeyConstraint("shard"),
    postgresql_with=MUCH_ROOM,
)

# How far the changes of a shard had come at a moment when its whole stream was folded, by how long
# workers had listened until then. Shows which runs have been silent: see `checkpoints.liveness`.
liveness_marks = sa.Table(
    "liveness_marks",
    metadata,
    *filled(sa.BigInteger, "listened_us", "change_seq"),
    *filled(TIME, "marked_at"),
    *filled(sa.SmallInteger, "shard"),
    sa.PrimaryKeyConstraint("shard", "listened_us"),
)
