"""Statistics, by the hour and by the day."""

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
        filled("n_timed", BigInteger, "0"),
        Column("duration_min_us", BigInteger),
        Column("duration_max_us", BigInteger),
        filled("duration_sum_us", Numeric, "0"),
        filled("input_tokens", Numeric, "0"),
        filled("output_tokens", Numeric, "0"),
        filled("cost_nano_usd", Numeric, "0"),
    )


def _histogram() -> tuple[Column[Any], ...]:
    """Of durations (see `histogram`)."""
    return (
        filled("bins", ARRAY(SmallInteger), "'{}'"),
        filled("bin_counts", ARRAY(BigInteger), "'{}'"),
    )


class Difference(UserDefinedType[Any]):
    """A record with the columns of `stats`: what is to be added."""

    def get_col_spec(self, **_options: object) -> str:
        """As SQL names it."""
        return "stats_difference"


ischema_names["stats_difference"] = Difference  # so that reflection knows it


# Rollups, as sums of differences. `node` is '' for the runs themselves; `hour` is that of the
# run's first event.
stats = Table(
    "stats",
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
# The hours in which runs began that have not ended.
Index(None, stats.c.status, stats.c.hour, postgresql_where=stats.c.is_open)

# All of an hour, for spans that do not begin or end with a day.
Index(None, stats.c.hour, postgresql_where=text("node = ''"))

# The same of runs by UTC day, all statuses in one row: what counts and a month's figures are read
# from. `workflow` is '' for a whole project, and `project` too for all of them.
stats_days = Table(
    "stats_days",
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

# Differences of small batches, a row for each shard, until they are merged (see `unmerged`). Up to
# 8 kB are kept as they are, neither compressed nor moved out of the row.
stats_differences = Table(
    "stats_differences",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    filled("shard", SmallInteger),
    filled("differences", ARRAY(Difference)),
    PrimaryKeyConstraint("shard", "id"),
    postgresql_with={"toast_tuple_target": 8160},
)

# Up to where they are merged.
stats_merged = Table(
    "stats_merged",
    metadata,
    filled("id", BigInteger, "0"),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
)

# The view: those that are not, with the columns of `stats`.
unmerged_stats = table(
    "unmerged_stats",
    *(column(each.name, each.type) for each in stats.columns if each.computed is None),
)
