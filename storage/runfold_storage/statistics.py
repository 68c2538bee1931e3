"""Counts, durations, usage and percentiles, from rollups wherever there are any.

A rollup row covers one hour, so a span of time is widened to whole hours: that of a run's first
event decides. Histograms add up, so a percentile over any span, bucket or group is a merge of
rows, within 1% of the true value and never outside the smallest and largest duration.

Days, weeks and months are those of a time zone; an hour belongs to the day in which it begins
there, which matters in zones that are half an hour off. Minutes and types of errors are in no
rollup: they come from the runs, at a cost that follows their number.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from msgspec import UNSET, UnsetType
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
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

from .errors import BadParameter
from .figures import BucketFigures, Figures, GroupFigures, figures_of
from .parameters import check_choice, check_name, check_time, check_zone
from .periods import ceil_hour, ceil_minute, floor_hour, floor_minute
from .stats_sources import Part, Source, parts_of, table_of, time_of
from .summaries import Watermark
from .tables import RUN_STATUSES
from .tallies import Tally
from .watermarks import read_watermark

BUCKETS: Final = ("minute", "hour", "day", "week", "month")
GROUPS: Final = ("workflow", "project", "node", "status", "error_type")
MAX_MINUTES: Final = timedelta(hours=6)
"""How long a time may be given by the minute."""
MAX_ROWS: Final = 20_000
"""Sums that one answer is made of: groups × buckets × statuses."""


class Stats(Figures, frozen=True, kw_only=True):
    """The figures of all, and the same per bucket and per group where that was asked for."""

    since: datetime | None
    until: datetime | None
    tz: str
    buckets: list[BucketFigures] | UnsetType = UNSET
    groups: list[GroupFigures] | UnsetType = UNSET
    watermark: Watermark


class StatsQuery(NamedTuple):
    """A checked question."""

    project: str | None
    workflow: str | None
    since: datetime | None
    until: datetime | None
    bucket: str | None
    group_by: str | None

    tz: str

    def parts(self) -> list[Part]:
        """What to add up."""
        if self.bucket == "minute" or self.group_by == "error_type":
            return [Part(Source.RUNS, self.since, self.until)]
        by_day = self.bucket is None or (self.bucket != "hour" and self.tz == "UTC")
        if by_day and self.group_by not in ("node", "status"):
            return parts_of(self.since, self.until)
        return [Part(Source.HOURS, self.since, self.until)]

    def conditions(self, part: Part) -> list[ColumnElement[bool]]:
        """As SQL over this part's table."""
        table, time = table_of(part.source).c, time_of(part.source)
        found: list[ColumnElement[bool]] = []
        if part.source is Source.DAYS:
            found += self._level(table)
        else:
            # Written out, or a prepared plan would not know that the index of runs' hours will do.
            nothing: ColumnElement[str] = literal_column("''")
            is_node = self.group_by == "node"
            found.append(table.node != nothing if is_node else table.node == nothing)
            found.append(table.n > 0)
            if self.project is not None:
                found.append(table.project == self.project)
            if self.workflow is not None:
                found.append(table.workflow == self.workflow)
        if self.group_by == "error_type":
            found.append(table.unusual_status == "failed")
        if part.first is not None:
            found.append(time >= part.first)
        if part.end is not None:
            found.append(time < part.end)
        return found

    def _level(self, days: Any) -> list[ColumnElement[bool]]:
        """Rows of days are there of all, of each project and of each workflow of a project."""
        if self.workflow is not None or self.group_by == "workflow":
            workflow = (
                days.workflow != "" if self.workflow is None else days.workflow == self.workflow
            )
            return [workflow, *([days.project == self.project] if self.project is not None else [])]
        if self.project is None and self.group_by == "project":
            return [days.workflow == "", days.project != ""]
        return [days.workflow == "", days.project == (self.project or "")]


def make_stats_query(
    *,
    project: str | None = None,
    workflow: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    bucket: str | None = None,
    group_by: str | None = None,
    tz: str | None = None,
) -> StatsQuery:
    """Check a question; `since` goes down and `until` up to the hour (by minutes: the minute)."""
    first, end = check_time("since", since), check_time("until", until)
    if first is not None and end is not None and first >= end:
        raise BadParameter("until", "must be later than since")
    check_choice("bucket", bucket, BUCKETS)
    check_choice("group_by", group_by, GROUPS)
    floor, ceil = floor_hour, ceil_hour
    if bucket == "minute":
        floor, ceil = floor_minute, ceil_minute
        if first is None or end is None or end - first > MAX_MINUTES:
            raise BadParameter(
                "bucket", "by minutes, `since` and `until` within six hours are needed"
            )
        if group_by == "node":
            raise BadParameter("group_by", "nodes are not counted by minutes, only by the hour")
    return StatsQuery(
        check_name("project", project),
        check_name("workflow", workflow),
        None if first is None else floor(first),
        None if end is None else ceil(end),
        bucket,
        group_by,
        check_zone("tz", tz),
    )


def read_stats(connection: Connection, query: StatsQuery) -> Stats:
    """Answer; `connection` is in a transaction with one snapshot for all of it."""
    tallies = _read_tallies(connection, query)
    is_nodes = query.group_by == "node"
    answer: dict[str, Any] = figures_of(_merged(tallies.values()), is_nodes=is_nodes)
    if query.bucket is not None:
        answer["buckets"] = _buckets(tallies, None, is_nodes=is_nodes)
    if query.group_by is not None:
        answer["groups"] = _groups(tallies, query)
    return Stats(
        **answer,
        since=query.since,
        until=query.until,
        tz=query.tz,
        watermark=read_watermark(connection),
    )


_Key = tuple[str | None, datetime | None]  # group and bucket
_Tallies = dict[_Key, Tally]


def _read_tallies(connection: Connection, query: StatsQuery) -> _Tallies:
    tallies: _Tallies = {}
    rows = 0
    for part in query.parts():
        sums = connection.execute(sums_statement(query, part)).all()
        rows += len(sums)
        if rows > MAX_ROWS:
            raise BadParameter(
                "bucket" if query.bucket is not None else "group_by",
                f"gives more than {MAX_ROWS} figures: choose larger buckets or a shorter time",
            )
        for row in sums:
            tallies.setdefault((row.grp, row.bucket), Tally()).add(row)
        for row in connection.execute(bins_statement(query, part)):
            tallies[row.grp, row.bucket].add_bins(row.bins, row.ns)
    return tallies


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
    """The histograms, per group and bucket, each as one row of two arrays, or as several.

    The few rows of days that an answer without groups takes are added up faster here than there.
    """
    table = table_of(part.source)
    group, bucket = _keys(query, part)
    if part.source is Source.DAYS and query.group_by is None:
        columns = (table.c.bins.label("bins"), table.c.bin_counts.label("ns"))
        counted = or_(*(table.c[status] != 0 for status in RUN_STATUSES))
        return select(group.label("grp"), bucket.label("bucket"), *columns).where(
            *query.conditions(part), counted
        )
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


def _merged(tallies: Iterable[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        whole.merge(tally)
    return whole


def _buckets(tallies: _Tallies, group: str | None, *, is_nodes: bool) -> list[BucketFigures]:
    """Those of one group, or of all; a bucket that nothing began in is left out."""
    by_start: dict[datetime, list[Tally]] = {}
    for (name, start), tally in tallies.items():
        if start is not None and group in (None, name):
            by_start.setdefault(start, []).append(tally)
    return [
        BucketFigures(**figures_of(_merged(by_start[start]), is_nodes=is_nodes), start=start)
        for start in sorted(by_start)
    ]


def _groups(tallies: _Tallies, query: StatsQuery) -> list[GroupFigures]:
    """The largest first."""
    assert query.group_by is not None
    is_nodes = query.group_by == "node"
    by_name: dict[str, _Tallies] = {}
    for (name, start), tally in tallies.items():
        if name is not None:
            by_name.setdefault(name, {})[name, start] = tally
    groups = []
    for name, own in by_name.items():
        fields: dict[str, Any] = {query.group_by: name}
        if query.bucket is not None:
            fields["buckets"] = _buckets(own, name, is_nodes=is_nodes)
        figures = figures_of(_merged(own.values()), is_nodes=is_nodes)
        groups.append(GroupFigures(**figures, **fields))
    return sorted(groups, key=lambda group: (-group.total, _name(group, query.group_by)))


def _name(group: GroupFigures, field: str | None) -> str:
    assert field is not None
    return str(getattr(group, field))
