"""Rollups added up by PostgreSQL: sums and histograms, per group and bucket."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    cast,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
)

from .stats_queries import StatsQuery
from .stats_sources import Part, Source, table_of, time_of
from .tables import RUN_STATUSES, stats_days

MAX_ROWS: Final = 20_000
"""Sums that one answer is made of: groups × buckets × statuses."""


def sums_statement(query: StatsQuery, part: Part) -> Select[Any]:
    """Everything but the histograms, per group and bucket, and per status unless by days."""
    table = table_of(part.source).c
    group, bucket = _keys(query, part)
    statement = select(group.label("grp"), bucket.label("bucket"))
    if part.source is Source.DAYS:
        counts = [func.sum(table[status]) for status in RUN_STATUSES]
        statement = (
            statement.add_columns(*(n.label(s) for n, s in zip(counts, RUN_STATUSES, strict=True)))
            .group_by("grp", "bucket")
            .having(or_(*(n != 0 for n in counts)))
        )
    else:
        statement = statement.add_columns(table.status, func.sum(table.n).label("n")).group_by(
            "grp", "bucket", table.status
        )
    return (
        statement.add_columns(*sum_columns(table))
        .where(*query.conditions(part))
        .limit(MAX_ROWS + 1)
    )


def bins_statement(query: StatsQuery, part: Part) -> Select[Any]:
    """The histograms, per group and bucket, each as one row of two arrays."""
    table = table_of(part.source)
    group, bucket = _keys(query, part)
    bins = unnested_bins(table.c)
    each = (
        select(
            group.label("grp"),
            bucket.label("bucket"),
            bins.c.bin,
            cast(func.sum(bins.c.n), BigInteger).label("n"),
        )
        .select_from(table.join(bins, true()))
        .where(*query.conditions(part))
        .group_by("grp", "bucket", bins.c.bin)
        .having(func.sum(bins.c.n) != 0)
        .subquery()
    )
    return select(
        each.c.grp,
        each.c.bucket,
        func.array_agg(each.c.bin).label("bins"),
        func.array_agg(each.c.n).label("ns"),
    ).group_by(each.c.grp, each.c.bucket)


def days_statement(query: StatsQuery, part: Part) -> Select[Any]:
    """Everything but the histograms of each day, and which rows these are."""
    days = stats_days.c
    counts = [func.sum(days[status]).label(status) for status in RUN_STATUSES]
    xid: ColumnElement[int] = literal_column("stats_days.xmin::text::bigint")
    written = func.sum(xid).label("written")
    return (
        select(days.day, *counts, *sum_columns(days), func.count().label("rows"), written)
        .where(*query.conditions(part))
        .group_by(days.day)
        .having(or_(*(func.sum(days[status]) != 0 for status in RUN_STATUSES)))
        .order_by(days.day)
        .limit(MAX_ROWS + 1)
    )


def days_bins_statement(query: StatsQuery, part: Part, wanted: Sequence[datetime]) -> Select[Any]:
    """The histograms of these days, as they are: few rows are added up faster here than there."""
    days = stats_days.c
    return select(days.day, days.bins, days.bin_counts.label("ns")).where(
        *query.conditions(part), days.day.in_(wanted)
    )


def sum_columns(of: Any) -> list[ColumnElement[Any]]:
    """What `Tally.add` adds up, beside the counts."""
    columns: list[ColumnElement[Any]] = [
        func.sum(column).label(column.name)
        for column in (
            of.n_timed,
            of.duration_sum_us,
            of.input_tokens,
            of.output_tokens,
            of.cost_nano_usd,
        )
    ]
    timed = of.n_timed > 0
    columns.append(func.min(of.duration_min_us).filter(timed).label("duration_min_us"))
    columns.append(func.max(of.duration_max_us).filter(timed).label("duration_max_us"))
    return columns


def unnested_bins(of: Any) -> Any:
    """Each row's histogram as rows of `bin` and `n`."""
    return (
        func.unnest(of.bins, of.bin_counts)
        .table_valued("bin", "n", name="histogram")
        .render_derived()
        .lateral()
    )


def _keys(query: StatsQuery, part: Part) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    table, time = table_of(part.source).c, time_of(part.source)
    group = null() if query.group_by is None else table[query.group_by]
    if query.bucket is None:
        return group, null()
    # Hours are those of UTC: in zones that are half an hour off, no rollup begins with theirs.
    zone = "UTC" if query.bucket in ("minute", "hour") else query.tz
    return group, func.date_trunc(literal(query.bucket), time, literal(zone))
