"""The statements that add rollups up: sums and histograms, per group and bucket.

A statement is compiled once for all queries of the same form, because SQLAlchemy takes longer to
compile it than PostgreSQL to answer most of them. Parameters are those of `StatsQuery.parameters`.
"""

from functools import lru_cache, reduce
from operator import add
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    SmallInteger,
    Text,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from runfold_storage.postgres.statements import Statement, compile_statement
from runfold_storage.tables import RUN_STATUSES, rollups_daily
from runfold_storage.tables.columns import TIME

from .query import StatsForm
from .sources import Source, table_of, time_of

_MAX_STATEMENTS: Final = 128
"""Compiled statements that each function caches, of about 6 kB each."""
MAX_ROWS: Final = 20_000
"""Maximum number of sums in one answer: groups × buckets × statuses."""


@lru_cache(_MAX_STATEMENTS)
def figures_statement(form: StatsForm) -> Statement:
    """Return the statement for sums, and for histograms as rows of their own.

    One statement saves a round trip. Rows of sums have no `bins`; there is one per group and
    bucket, and per status unless by days. A histogram is two arrays, `bins` and `ns`, per group
    and bucket. There are no histograms with more than `MAX_ROWS` sums.
    """
    sums = _sums(form).cte("sums")
    are_few = select(func.count()).select_from(sums).scalar_subquery() <= MAX_ROWS
    histograms = _histograms(form, are_few).subquery()
    rest = [cast(null(), column.type).label(column.name) for column in list(sums.c)[2:]]
    lists = [cast(null(), ARRAY(kind)) for kind in (SmallInteger, BigInteger)]
    bins, ns = (kind.label(name) for kind, name in zip(lists, ("bins", "ns"), strict=True))
    every = histograms.c
    rows_of_bins = select(every.grp, every.bucket, *rest, every.bins, every.ns)
    return compile_statement(union_all(select(*sums.c, bins, ns), rows_of_bins))


def _sums(form: StatsForm) -> Select[Any]:
    table = table_of(form.source).c
    group, bucket = _keys(form)
    statement = select(group.label("grp"), bucket.label("bucket"))
    if form.source is Source.DAYS:
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
    return statement.add_columns(*sum_columns(table)).where(*form.conditions()).limit(MAX_ROWS + 1)


def _histograms(form: StatsForm, condition: ColumnElement[bool]) -> Select[Any]:
    table = table_of(form.source)
    group, bucket = _keys(form)
    bins = unnested_bins(table.c)
    each = (
        select(
            group.label("grp"),
            bucket.label("bucket"),
            bins.c.bin,
            cast(func.sum(bins.c.n), BigInteger).label("n"),
        )
        .select_from(table.join(bins, true()))
        .where(*form.conditions(), condition)
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


@lru_cache(_MAX_STATEMENTS)
def days_statement(form: StatsForm) -> Statement:
    """Return the statement for the days and the version of their rows."""
    days = rollups_daily.c
    n = func.sum(reduce(add, (days[status] for status in RUN_STATUSES)))
    xid: ColumnElement[int] = literal_column("hashtext(rollups_daily.xmin::text)::bigint")
    return compile_statement(
        select(days.day, n, func.count(), func.sum(xid))
        .where(*form.conditions())
        .group_by(days.day)
        .having(n != 0)
        .limit(MAX_ROWS + 1)
    )


@lru_cache(_MAX_STATEMENTS)
def day_rows_statement(form: StatsForm) -> Statement:
    """Return the statement for the rows of the days `wanted`; Python adds few rows up faster."""
    wanted = rollups_daily.c.day == func.any(bindparam("wanted", type_=ARRAY(TIME)))
    return compile_statement(select(rollups_daily).where(*form.conditions(), wanted))


def sum_columns(of: Any) -> list[ColumnElement[Any]]:
    """Return the sums that `Aggregate.add` reads, beside the counts."""
    columns: list[ColumnElement[Any]] = [
        func.sum(column).label(column.name)
        for column in (
            of.duration_count,
            of.duration_sum_us,
            of.input_tokens,
            of.output_tokens,
            of.cost_nano_usd,
        )
    ]
    timed = of.duration_count > 0
    columns.append(func.min(of.duration_min_us).filter(timed).label("duration_min_us"))
    columns.append(func.max(of.duration_max_us).filter(timed).label("duration_max_us"))
    return columns


def unnested_bins(of: Any) -> Any:
    """Return each row's histogram as rows of `bin` and `n`."""
    return (
        func.unnest(of.bins, of.bin_counts)
        .table_valued("bin", "n", name="histogram")
        .render_derived()
        .lateral()
    )


def _keys(form: StatsForm) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    table, time = table_of(form.source).c, time_of(form.source)
    group = null() if form.group_by is None else table[form.group_by]
    if form.bucket is None:
        return group, null()
    return group, func.date_trunc(literal(form.bucket), time, bindparam("zone", type_=Text))
