"""Counts, durations, usage and percentiles, from rollups wherever there are any.

Histograms add up, so a percentile over any span, bucket or group is a merge of rows, within 1% of
the true value and never outside the smallest and largest duration. Minutes and types of errors are
in no rollup: they come from the runs, at a cost that follows their number.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from .errors import BadParameter
from .figures import BucketFigures, Figures, GroupFigures, figures_of
from .remembered_days import Key, RememberedDays
from .stats_queries import StatsQuery
from .stats_sources import Part, Source
from .stats_statements import (
    MAX_ROWS,
    bins_statement,
    days_bins_statement,
    days_statement,
    sums_statement,
)
from .summaries import Watermark
from .tallies import Tally
from .watermarks import read_watermark


class Stats(Figures, frozen=True, kw_only=True):
    """The figures of all, and the same per bucket and per group where that was asked for."""

    since: datetime | None
    until: datetime | None
    tz: str
    buckets: list[BucketFigures] | UnsetType = UNSET
    groups: list[GroupFigures] | UnsetType = UNSET
    watermark: Watermark


def read_stats(connection: Connection, query: StatsQuery, remembered: RememberedDays) -> Stats:
    """Answer; `connection` is in a transaction with one snapshot for all of it."""
    tallies = _read_tallies(connection, query, remembered)
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


def _read_tallies(
    connection: Connection, query: StatsQuery, remembered: RememberedDays
) -> _Tallies:
    tallies: _Tallies = {}
    rows = 0
    for part in query.parts():
        if part.source is Source.DAYS and query.group_by is None:
            for day, tally in _read_days(connection, query, part, remembered).items():
                tallies.setdefault((None, _begin_of(query.bucket, day)), Tally()).merge(tally)
            continue
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


def _read_days(
    connection: Connection, query: StatsQuery, part: Part, remembered: RememberedDays
) -> dict[datetime, Tally]:
    found: dict[datetime, Tally] = {}
    new: dict[datetime, tuple[Key, Any]] = {}
    for row in connection.execute(days_statement(query, part)):
        found[row.day] = Tally()
        found[row.day].add(row)
        key, version = (query.project, query.workflow, row.day), tuple(row)
        bins = remembered.get(key, version)
        if bins is None:
            new[row.day] = key, version
        else:
            found[row.day].bins = dict(bins)
    if new:
        for row in connection.execute(days_bins_statement(query, part, list(new))):
            found[row.day].add_bins(row.bins, row.ns)
        for day, (key, version) in new.items():
            remembered.put(key, version, dict(found[day].bins))
    return found


def _begin_of(bucket: str | None, day: datetime) -> datetime | None:
    """The first day of the bucket that a day is in, all in UTC."""
    if bucket == "week":
        return day - timedelta(days=day.weekday())
    if bucket == "month":
        return day.replace(day=1)
    return None if bucket is None else day


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
