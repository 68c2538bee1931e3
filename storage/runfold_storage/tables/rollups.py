"""Rollups: statistics by hour and by day, and the deltas that are not merged into them yet."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from .columns import TIME, derived, filled, nullable, table
from .runs import RUN_STATUSES


def _values() -> list[sa.Column[Any]]:
    """Return the columns of durations and usage; `bins` are those of `records.histogram`."""
    return [
        *filled(sa.BigInteger, "duration_count", default="0"),
        *nullable(sa.BigInteger, "duration_min_us", "duration_max_us"),
        *filled(sa.Numeric, "duration_sum_us", "input_tokens", "output_tokens", default="0"),
        *filled(sa.Numeric, "cost_nano_usd", default="0"),
        *filled(ARRAY(sa.SmallInteger), "bins", default="'{}'"),
        *filled(ARRAY(sa.BigInteger), "bin_counts", default="'{}'"),
    ]


class Difference(UserDefinedType[Any]):
    """A record with the columns of `rollups_hourly`: what to add to one of its rows."""

    def get_col_spec(self, **_options: object) -> str:
        """Return the type's name in SQL."""
        return "rollup_delta"


ischema_names["rollup_delta"] = Difference  # so that reflection knows it


# Each row is a sum of deltas. `n` counts runs, or attempts at a node; `node` is '' for the runs
# themselves; `hour` is that of the run's first event.
rollups_hourly = table(
    "rollups_hourly",
    ("workflow", "project", "node", "hour", "status", "shard"),
    *filled(TIME, "hour"),
    *filled(sa.BigInteger, "n", default="0"),
    *_values(),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "project", "workflow", "node", "status"),
    derived(
        "is_open",
        sa.Boolean,
        "CASE WHEN ((n > 0) AND (node = ''::text) AND "
        "(status = ANY (ARRAY['queued'::text, 'running'::text]))) "
        "THEN true ELSE NULL::boolean END",
    ),
)
# The hours in which open runs began.
sa.Index(
    None, rollups_hourly.c.status, rollups_hourly.c.hour, postgresql_where=rollups_hourly.c.is_open
)
# Whole hours, for time ranges that do not begin or end with a day.
sa.Index(None, rollups_hourly.c.hour, postgresql_where=sa.text("node = ''"))

# Runs by UTC day, with a column for each status. `workflow` is '' for a whole project; `project`,
# too, is '' for all of them.
rollups_daily = table(
    "rollups_daily",
    ("workflow", "project", "day", "shard"),
    *filled(TIME, "day"),
    *filled(sa.BigInteger, *RUN_STATUSES, default="0"),
    *_values(),
    *filled(sa.SmallInteger, "shard"),
    *filled(sa.Text, "project", "workflow"),
)

# Deltas of small batches, a row for each shard, until they are merged (see `rollups.store`). Up to
# 8 kB are stored inline, neither compressed nor moved out of the row.
rollup_deltas = table(
    "rollup_deltas",
    ("shard", "id"),
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    *filled(sa.SmallInteger, "shard"),
    *filled(ARRAY(Difference), "deltas"),
)

# Up to which `id` the deltas of a shard are merged.
rollup_delta_cursors = table(
    "rollup_delta_cursors",
    ("shard",),
    *filled(sa.BigInteger, "id", default="0"),
    *filled(sa.SmallInteger, "shard"),
)
