"""Counts, durations, usage and percentiles, from rollups where possible.

Histograms add up, so a percentile over any span, bucket or group is a merge of rows, within 1% of
the true value and never outside the smallest and largest duration. No rollup has minutes or error
types: they come from the runs, at a cost proportional to their number.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final

from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import UNKNOWN
from runfold_storage.postgres.statements import Statement, row_of
from runfold_storage.read_models.summaries import Watermark
from runfold_storage.read_models.watermarks import POSITION_COLUMNS, POSITION_NAMES, watermark_of

from .aggregate import Aggregate, BucketFigures, GroupFigures, StatsSummary, figures_of, merged
from .day_cache import DayCache, DayKey
from .local_days import begin_of, read_local_days
from .query import MAX_BUCKETS, StatsQuery, check_buckets
from .sources import Part, Source
from .sql import MAX_ROWS, day_rows_statement, days_statement, figures_statement


class Stats(StatsSummary, frozen=True, kw_only=True):
    """The figures of all, and per bucket and per group if requested."""

    since: datetime | None
    until: datetime
    tz: str
    buckets: list[BucketFigures] | UnsetType = UNSET
    groups: list[GroupFigures] | UnsetType = UNSET
    watermark: Watermark


def read_stats(connection: Connection, query: StatsQuery, day_cache: DayCache) -> Stats:
    """Return the statistics; `connection` is in a transaction with one snapshot."""
    state = _STATE.run(connection, {})
    unmerged = query.unmerged() if any(row.has_unmerged for row in state) else []
    aggregates = _read_aggregates(connection, query, unmerged, day_cache)
    _check_buckets(query, aggregates)
    is_nodes = query.group_by == "node"
    whole = day_cache.merged(chain(*aggregates.values()))
    answer: dict[str, Any] = figures_of(whole, is_nodes=is_nodes)
    if query.bucket is not None:
        answer["buckets"] = _buckets(aggregates, None, is_nodes=is_nodes)
    if query.group_by is not None:
        answer["groups"] = _groups(aggregates, query)
    return Stats(
        **answer,
        since=query.since if query.has_since else None,
        until=query.until,
        tz=query.tz,
        watermark=watermark_of(state),
    )


_STATE: Final = Statement(
    f"""
    SELECT {POSITION_COLUMNS}, EXISTS (SELECT FROM pending_rollups)
    FROM positions AS p ORDER BY p.shard
    """,  # noqa: S608 - a constant
    {},
    row_of(*POSITION_NAMES, "has_unmerged"),
)
"""The positions, and whether any deltas are not merged yet."""

_Key = tuple[str | None, datetime | None]  # group and bucket
_Aggregates = dict[_Key, list[Aggregate]]


def _read_aggregates(
    connection: Connection,
    query: StatsQuery,
    unmerged: Sequence[Part],
    day_cache: DayCache,
) -> _Aggregates:
    aggregates: _Aggregates = {}
    rows = 0
    parts = query.parts()
    if query.has_local_days:
        (part,) = parts
        local_days = read_local_days(connection, query, part, day_cache)
        for start, aggregate in local_days.aggregates.items():
            key = (None, begin_of(query.bucket, start, query.tz))
            aggregates.setdefault(key, []).append(aggregate)
        parts = local_days.rest
    for part in (*parts, *unmerged):
        form, parameters = query.form(part), query.parameters(part)
        if part.source is Source.DAYS and query.group_by is None:
            days = _read_days(connection, query, part, day_cache)
            _check_rows(query, len(days))
            for day, aggregate in days.items():
                aggregates.setdefault((None, begin_of(query.bucket, day, "UTC")), []).append(
                    aggregate
                )
            continue
        found = figures_statement(form).run(connection, parameters)
        rows += sum(row.bins is None for row in found)
        _check_rows(query, rows)
        added: dict[_Key, Aggregate] = defaultdict(Aggregate)
        for row in found:
            added[row.grp, row.bucket].add_figures(row)
        for group_and_bucket, total in added.items():
            aggregates.setdefault(group_and_bucket, []).append(total)
    return aggregates


def _check_buckets(query: StatsQuery, aggregates: _Aggregates) -> None:
    """Check the number of buckets found, for queries without `since`."""
    starts = {start for _, start in aggregates if start is not None}
    if query.bucket is not None and len(starts) > MAX_BUCKETS:
        check_buckets(query.bucket, min(starts), query.until)
        detail = f"yields {len(starts)} buckets, at most {MAX_BUCKETS} are allowed"
        raise BadParameter("bucket", f"{detail}: choose larger ones or a shorter span")


def _check_rows(query: StatsQuery, rows: int) -> None:
    if rows > MAX_ROWS:
        raise BadParameter(
            "bucket" if query.bucket is not None else "group_by",
            f"yields more than {MAX_ROWS} figures: choose larger buckets or a shorter span",
        )


def _read_days(
    connection: Connection, query: StatsQuery, part: Part, day_cache: DayCache
) -> dict[datetime, Aggregate]:
    form, parameters = query.form(part), query.parameters(part)
    found: dict[datetime, Aggregate] = {}
    new: dict[datetime, tuple[DayKey, Any]] = {}
    for day, *version in days_statement(form).run(connection, parameters):
        key = (query.project, query.workflow, "UTC", day)
        aggregate = day_cache.get(key, version)
        if aggregate is None:
            aggregate = Aggregate()
            new[day] = key, version
        found[day] = aggregate
    if new:
        wanted = parameters | {"wanted": list(new)}
        for row in day_rows_statement(form).run(connection, wanted):
            found[row.day].add(row)
            found[row.day].add_bins(row.bins, row.bin_counts)
        for day, (key, version) in new.items():
            day_cache.put(key, version, found[day])
    return found


def _buckets(aggregates: _Aggregates, group: str | None, *, is_nodes: bool) -> list[BucketFigures]:
    """Return the buckets of one group, or of all, without empty ones."""
    by_start: dict[datetime, list[Aggregate]] = defaultdict(list)
    for (name, start), own in aggregates.items():
        if start is not None and group in (None, name):
            by_start[start] += own
    whole = {start: merged(by_start[start]) for start in sorted(by_start)}
    return [
        BucketFigures(**figures_of(aggregate, is_nodes=is_nodes), start=start)
        for start, aggregate in whole.items()
        if aggregate.counts_something
    ]


def _groups(aggregates: _Aggregates, query: StatsQuery) -> list[GroupFigures]:
    """Return the groups, the largest first."""
    assert query.group_by is not None
    is_nodes = query.group_by == "node"
    by_name: dict[str, _Aggregates] = {}
    for (name, start), its in aggregates.items():
        if name is not None:
            by_name.setdefault(name, {})[name, start] = its
    groups = []
    for name, own in by_name.items():
        whole = merged(chain(*own.values()))
        if not whole.counts_something:
            continue
        is_unknown = name == UNKNOWN and query.group_by in ("project", "workflow")
        fields: dict[str, Any] = {query.group_by: None if is_unknown else name}
        if query.bucket is not None:
            fields["buckets"] = _buckets(own, name, is_nodes=is_nodes)
        figures = figures_of(whole, is_nodes=is_nodes)
        groups.append(GroupFigures(**figures, **fields))
    return sorted(groups, key=lambda group: (-group.total, _name(group, query.group_by)))


def _name(group: GroupFigures, field: str | None) -> str:
    assert field is not None
    return str(getattr(group, field))
