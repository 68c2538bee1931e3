"""The ledger, and how far it is folded: positions, leases, changes, incidents."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from runfold.protocol.codec import TYPES

from .columns import TIME, filled, nullable, table

# The ledger. `body` is the JSON text of all fields outside the envelope. Partitioned by week on the
# run key (`ledger.partitions`).
events = table(
    "events",
    ("shard", "run", "id"),
    *filled(sa.Uuid, "run"),
    *filled(sa.BigInteger, "id"),
    *filled(TIME, "at"),
    *filled(sa.Enum(*TYPES, name="event_type"), "type"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "body"),
)

# Events that could not be decoded: `frame` is the stream entry's id, `ordinal` the index inside it.
dead_letters = table(
    "dead_letters",
    ("id",),
    sa.Column("id", sa.BigInteger, sa.Identity(always=True)),
    *filled(TIME, "created_at", default="now()"),
    *filled(sa.Integer, "ordinal"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "frame", "reason"),
    *filled(sa.LargeBinary, "raw"),
    sa.UniqueConstraint("shard", "frame", "ordinal"),
)

# Deleted runs. `events_left`: their events are not deleted yet; `is_expiry`: retention deleted
# them, so they still count in the statistics; `archived`: the archive has this tombstone.
tombstones = table(
    "tombstones",
    ("shard", "run"),
    *filled(sa.Uuid, "run"),
    *filled(TIME, "deleted_at", default="now()"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Boolean, "events_left", "is_expiry", "archived", default="false"),
)
sa.Index(
    "tombstones_events_left_idx",
    *(tombstones.c.shard, tombstones.c.run),
    postgresql_where=tombstones.c.events_left,
)

# The checkpoint of each shard. Every other process that changes projections raises `generation`.
positions = table(
    "positions",
    ("shard",),
    *filled(sa.BigInteger, "consumed", "change_seq", "generation", default="0"),
    *filled(TIME, "updated_at", default="now()"),
    *nullable(TIME, "folded_at"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "position", default="'0-0'"),
)

# Which runs changed: `runs` holds 17 bytes for each of the numbers that end with `change_seq`, a
# flag and the run's key; `deleted_ids` has the ids of deleted runs. See `checkpoints.change_log`.
changes = table(
    "changes",
    ("shard", "change_seq"),
    *filled(sa.BigInteger, "change_seq"),
    *filled(TIME, "changed_at", default="now()"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.LargeBinary, "runs"),
    *nullable(ARRAY(sa.Text), "deleted_ids"),
)

# Which worker folds a shard. Leases avoid duplicate work; exactness comes from `positions`.
leases = table(
    "leases",
    ("shard",),
    *filled(TIME, "expires_at"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "owner"),
)

# The live workers, so that each takes its share of the leases.
workers = table(
    "workers",
    ("owner",),
    *filled(TIME, "joined_at", default="now()"),
    *filled(TIME, "expires_at"),
    *filled(sa.Text, "owner"),
)

# Losses and refusals that must not happen (`checkpoints.incidents`); `shard` is -1 for incidents of
# the whole deployment.
incidents = table(
    "incidents",
    ("kind", "shard"),
    *filled(sa.BigInteger, "count"),
    *filled(sa.BigInteger, "acknowledged", default="0"),
    *filled(TIME, "happened_at", default="now()"),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "kind"),
)

# How many frames each stream had received when it was last read: the only record of what Redis held
# before it was flushed or restored. Not in `positions`, whose rows batches keep locked.
stream_checkpoints = table(
    "stream_checkpoints",
    ("shard",),
    *filled(sa.BigInteger, "entries_added"),
    *filled(sa.SmallInteger, "shard"),
)

# How far the changes of a shard had come at a moment when its whole stream was folded, by how long
# workers had listened until then (`checkpoints.liveness`).
liveness_marks = table(
    "liveness_marks",
    ("shard", "listened_us"),
    *filled(sa.BigInteger, "listened_us", "change_seq"),
    *filled(TIME, "marked_at"),
    *filled(sa.SmallInteger, "shard"),
)
