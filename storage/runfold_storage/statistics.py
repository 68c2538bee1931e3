"""Counts, durations, usage and percentiles, from the rollups alone.

A rollup row covers one hour, so a span of time is widened to whole hours: that of a run's first
event decides. Histograms add up, so a percentile over any span, bucket or group is a merge of
rows, within 1% of the true value and never outside the smallest and largest duration.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, Connection, Select, func, literal, null, select, true

from .errors import BadParameter
from .figures import BucketFigures, Figures, GroupFigures, figures_of
from .filters import ceil_hour, check_choice, check_name, check_time, floor_hour
from .summaries import Watermark
from .tables import stats
from .tallies import Tally
from .watermarks import read_watermark

BUCKETS: Final = ("hour", "day", "week", "month")
GROUPS: Final = ("workflow", "project", "node", "status")
MAX_ROWS: Final = 20_000
"""Sums that one answer is made of: groups × buckets × statuses."""


class Stats(Figures, frozen=True, kw_only=True):
    """The figures of all, and the same per bucket and per group where that was asked for."""

    since: datetime | None
    until: datetime | None
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

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL over `stats`."""
        found = [stats.c.node != "" if self.group_by == "node" else stats.c.node == ""]
        found.append(stats.c.n > 0)
        if self.project is not None:
            found.append(stats.c.project == self.project)
        if self.workflow is not None:
            found.append(stats.c.workflow == self.workflow)
        if self.since is not None:
            found.append(stats.c.hour >= self.since)
        if self.until is not None:
            found.append(stats.c.hour < self.until)
        return found


def make_stats_query(
    *,
    project: str | None = None,
    workflow: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    bucket: str | None = None,
    group_by: str | None = None,
) -> StatsQuery:
    """Check a question; `since` goes down and `until` up to the hour."""
    first, end = check_time("since", since), check_time("until", until)
    if first is not None and end is not None and first >= end:
        raise BadParameter("until", "must be later than since")
    return StatsQuery(
        check_name("project", project),
        check_name("workflow", workflow),
        None if first is None else floor_hour(first),
        None if end is None else ceil_hour(end),
        check_choice("bucket", bucket, BUCKETS),
        check_choice("group_by", group_by, GROUPS),
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
        **answer, since=query.since, until=query.until, watermark=read_watermark(connection)
    )


_Key = tuple[str | None, datetime | None]  # group and bucket
_Tallies = dict[_Key, Tally]


def _read_tallies(connection: Connection, query: StatsQuery) -> _Tallies:
    tallies: _Tallies = {}
    sums = connection.execute(sums_statement(query)).all()
    if len(sums) > MAX_ROWS:
        raise BadParameter(
            "bucket" if query.bucket is not None else "group_by",
            f"gives more than {MAX_ROWS} figures: choose larger buckets or a shorter time",
        )
    for row in sums:
        tallies.setdefault((row.grp, row.bucket), Tally()).add(row)
    for row in connection.execute(bins_statement(query)):
        tallies[row.grp, row.bucket].add_bin(row.bin, int(row.n))
    return tallies


def sums_statement(query: StatsQuery) -> Select[Any]:
    """Everything but the histograms, per group, bucket and status."""
    group, bucket = _keys(query)
    return (
        select(group.label("grp"), bucket.label("bucket"), stats.c.status, *sum_columns())
        .where(*query.conditions())
        .group_by("grp", "bucket", stats.c.status)
        .limit(MAX_ROWS + 1)
    )


def bins_statement(query: StatsQuery) -> Select[Any]:
    """The histograms, per group and bucket."""
    group, bucket = _keys(query)
    bins = unnested_bins()
    return (
        select(
            group.label("grp"),
            bucket.label("bucket"),
            bins.c.bin,
            func.sum(bins.c.n).label("n"),
        )
        .select_from(stats.join(bins, true()))
        .where(*query.conditions())
        .group_by("grp", "bucket", bins.c.bin)
    )


def sum_columns() -> list[ColumnElement[Any]]:
    """What `Tally.add` adds up."""
    columns: list[ColumnElement[Any]] = [
        func.sum(column).label(column.name)
        for column in (
            stats.c.n,
            stats.c.n_timed,
            stats.c.duration_sum_us,
            stats.c.input_tokens,
            stats.c.output_tokens,
            stats.c.cost_nano_usd,
        )
    ]
    timed = stats.c.n_timed > 0
    columns.append(func.min(stats.c.duration_min_us).filter(timed).label("duration_min_us"))
    columns.append(func.max(stats.c.duration_max_us).filter(timed).label("duration_max_us"))
    return columns


def unnested_bins() -> Any:
    """Each row's histogram as rows of `bin` and `n`."""
    return (
        func.unnest(stats.c.bins, stats.c.bin_counts)
        .table_valued("bin", "n", name="histogram")
        .render_derived()
        .lateral()
    )


def _keys(query: StatsQuery) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    group = null() if query.group_by is None else stats.c[query.group_by]
    if query.bucket is None:
        return group, null()
    return group, func.date_trunc(literal(query.bucket), stats.c.hour, literal("UTC"))


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
