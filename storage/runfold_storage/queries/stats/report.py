"""Counts, durations, usage and percentiles: of all, per bucket and per group.

Minutes and error types come from the runs, at a cost proportional to their number.
"""

from collections import defaultdict
from datetime import datetime
from itertools import chain
from typing import Any

from msgspec import UNSET, UnsetType

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import UNKNOWN
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.summaries import Watermark
from runfold_storage.read_models.watermarks import watermark_of

from . import sql
from .aggregate import Aggregate, BucketFigures, GroupFigures, StatsSummary, figures_of, merged
from .day_cache import DayCache
from .days import bucket_of, read_days
from .query import MAX_BUCKETS, Part, Source, StatsQuery, check_buckets


class Stats(StatsSummary, frozen=True, kw_only=True):
    """The figures of all, and per bucket and per group if requested."""

    since: datetime | None
    until: datetime
    tz: str
    buckets: list[BucketFigures] | UnsetType = UNSET
    groups: list[GroupFigures] | UnsetType = UNSET
    watermark: Watermark


def read_stats(connection: ReadConnection, query: StatsQuery, day_cache: DayCache) -> Stats:
    """Return the statistics; `connection` is in a transaction with one snapshot."""
    state = connection.execute(sql.STATE).fetchall()
    unmerged = []
    if any(row.has_unmerged for row in state) and not query.is_of_runs:
        unmerged.append(Part(Source.UNMERGED, query.since, query.until))
    aggregates = _read_aggregates(connection, query, unmerged, day_cache)
    starts = {start for _, start in aggregates if start is not None}
    if query.bucket is not None and len(starts) > MAX_BUCKETS:  # of a query without `since`
        check_buckets(query.bucket, min(starts), query.until)
        detail = f"yields {len(starts)} buckets, at most {MAX_BUCKETS} are allowed"
        raise BadParameter("bucket", f"{detail}: choose larger ones or a shorter span")
    is_nodes = query.group_by == "node"
    whole = day_cache.merged(chain(*aggregates.values()))
    answer: dict[str, Any] = figures_of(whole, is_nodes=is_nodes)
    if query.bucket is not None:
        answer["buckets"] = _buckets(aggregates, is_nodes=is_nodes)
    if query.group_by is not None:
        answer["groups"] = _groups(aggregates, query, query.group_by)
    return Stats(
        **answer,
        since=query.since if query.has_since else None,
        until=query.until,
        tz=query.tz,
        watermark=watermark_of(state),
    )


_Key = tuple[str | None, datetime | None]  # group and bucket
_Aggregates = dict[_Key, list[Aggregate]]


def _read_aggregates(
    connection: ReadConnection, query: StatsQuery, unmerged: list[Part], day_cache: DayCache
) -> _Aggregates:
    aggregates: _Aggregates = defaultdict(list)
    rows = 0
    parts = query.parts()
    if query.is_of_days:
        rest = []
        for part in parts:
            days, others = read_days(connection, query, part, day_cache)
            rows += len(days)
            rest += others
            for start, aggregate in days.items():
                aggregates[None, bucket_of(query.bucket, start, query.day_zone)].append(aggregate)
        parts = rest
    for part in (*parts, *unmerged):
        added: dict[_Key, Aggregate] = defaultdict(Aggregate)
        for row in connection.execute(sql.figures(query, part), query.parameters(part)):
            added[row.grp, row.bucket].add_figures(row)
            rows += row.bins is None
        for key, total in added.items():
            aggregates[key].append(total)
        if rows > sql.MAX_ROWS:
            raise BadParameter(
                "bucket" if query.bucket is not None else "group_by",
                f"yields more than {sql.MAX_ROWS} figures: choose larger buckets or a shorter span",
            )
    return aggregates


def _buckets(aggregates: _Aggregates, *, is_nodes: bool) -> list[BucketFigures]:
    """Return the buckets of all groups, without empty ones."""
    by_start: dict[datetime, list[Aggregate]] = defaultdict(list)
    for (_, start), own in aggregates.items():
        if start is not None:
            by_start[start] += own
    whole = {start: merged(by_start[start]) for start in sorted(by_start)}
    return [
        BucketFigures(**figures_of(aggregate, is_nodes=is_nodes), start=start)
        for start, aggregate in whole.items()
        if aggregate.counts_something
    ]


def _groups(aggregates: _Aggregates, query: StatsQuery, group_by: str) -> list[GroupFigures]:
    """Return the groups, the largest first."""
    is_nodes = group_by == "node"
    by_name: dict[str, _Aggregates] = defaultdict(dict)
    for (name, start), its in aggregates.items():
        if name is not None:
            by_name[name][name, start] = its
    groups = []
    for name, own in by_name.items():
        whole = merged(chain(*own.values()))
        if not whole.counts_something:
            continue
        is_unknown = name == UNKNOWN and group_by in ("project", "workflow")
        fields: dict[str, Any] = {group_by: None if is_unknown else name}
        if query.bucket is not None:
            fields["buckets"] = _buckets(own, is_nodes=is_nodes)
        groups.append(GroupFigures(**figures_of(whole, is_nodes=is_nodes), **fields))
    return sorted(groups, key=lambda group: (-group.total, str(getattr(group, group_by))))
