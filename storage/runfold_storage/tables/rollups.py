"""Rollups: statistics by hour and by day, and the deltas that are not merged into them yet."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Identity,
    Index,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    column,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from .columns import ROOM_FOR_HOT_UPDATES, TIME, derived, filled, metadata
from .runs import RUN_STATUSES


def _figures() -> tuple[Column[Any], ...]:
    return (
        filled("duration_count", BigInteger, "0"),
        Column("duration_min_us", BigInteger),
        Column("duration_max_us", BigInteger),
        filled("duration_sum_us", Numeric, "0"),
        filled("input_tokens", Numeric, "0"),
        filled("output_tokens", Numeric, "0"),
        filled("cost_nano_usd", Numeric, "0"),
    )


def _histogram() -> tuple[Column[Any], ...]:
    """Return the histogram of durations (see `records.histogram`)."""
    return (
        filled("bins", ARRAY(SmallInteger), "'{}'"),
        filled("bin_counts", ARRAY(BigInteger), "'{}'"),
    )


class Difference(UserDefinedType[Any]):
    """A record with the columns of `rollups_hourly`: what to add to one of its rows."""

    def get_col_spec(self, **_options: object) -> str:
        """Return the type's name in SQL."""
        return "rollup_delta"


ischema_names["rollup_delta"] = Difference  # so that reflection knows it


# Each row is a sum of deltas. `n` counts runs, or attempts at a node; `node` is '' for the runs
# themselves; `hour` is that of the run's first event.
rollups_hourly = Table(
    "rollups_hourly",
    metadata,
    filled("hour", TIME),
    filled("n", BigInteger, "0"),
    *_figures(),
    filled("shard", SmallInteger),
    filled("project", Text),
    filled("workflow", Text),
    filled("node", Text),
    filled("status", Text),
    *_histogram(),
    derived(
        "is_open",
        Boolean,
        "CASE WHEN ((n > 0) AND (node = ''::text) AND "
        "(status = ANY (ARRAY['queued'::text, 'running'::text]))) "
        "THEN true ELSE NULL::boolean END",
    ),
    PrimaryKeyConstraint("workflow", "project", "node", "hour", "status", "shard"),
    postgresql_with=ROOM_FOR_HOT_UPDATES,
)
# The hours in which open runs began.
Index(
    None, rollups_hourly.c.status, rollups_hourly.c.hour, postgresql_where=rollups_hourly.c.is_open
)

# Whole hours, for time ranges that do not begin or end with a day.
Index(None, rollups_hourly.c.hour, postgresql_where=text("node = ''"))

# Runs by UTC day, with a column for each status. `workflow` is '' for a whole project; `project`,
# too, is '' for all of them.
rollups_daily = Table(
    "rollups_daily",
    metadata,
    filled("day", TIME),
    *(filled(status, BigInteger, "0") for status in RUN_STATUSES),
    *_figures(),
    filled("shard", SmallInteger),
    filled("project", Text),
    filled("workflow", Text),
    *_histogram(),
    PrimaryKeyConstraint("workflow", "project", "day", "shard"),
    postgresql_with=ROOM_FOR_HOT_UPDATES,
)

# Deltas of small batches, a row for each shard, until they are merged (see
# `rollups.pending_deltas`). Up to 8 kB are stored inline, neither compressed nor moved out of the
# row.
rollup_deltas = Table(
    "rollup_deltas",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    filled("shard", SmallInteger),
    filled("deltas", ARRAY(Difference)),
    PrimaryKeyConstraint("shard", "id"),
    postgresql_with={"toast_tuple_target": 8160},
)

# Up to which `id` the deltas of a shard are merged.
rollup_delta_cursors = Table(
    "rollup_delta_cursors",
    metadata,
    filled("id", BigInteger, "0"),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
)

# The view of all deltas that are not merged yet, with the columns of `rollups_hourly`.
pending_rollups = table(
    "pending_rollups",
    *(column(each.name, each.type) for each in rollups_hourly.columns if each.computed is None),
)
