"""Days of a time zone other than UTC: added up from their hours once, and cached.

Invariant: every transaction that changes an hour also changes the row of its UTC day (`rollups`).
So a local day is unchanged as long as the rows of the UTC days that it overlaps are, which
`days_statement` shows.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from .aggregate import Aggregate
from .day_cache import DayCache, DayKey
from .query import StatsQuery
from .sources import Part, Source, begin_of_day, ceil_day, floor_day
from .sql import MAX_ROWS, days_statement, figures_statement

_DAY: Final = timedelta(days=1)


class LocalDays(NamedTuple):
    """Aggregates of whole days by their start, and the parts before and after them."""

    aggregates: dict[datetime, Aggregate]
    rest: list[Part]


def read_local_days(
    connection: Connection, query: StatsQuery, part: Part, day_cache: DayCache
) -> LocalDays:
    """Split a part into whole days of the query's zone, which are cached, and hours."""
    zone = ZoneInfo(query.tz)
    try:
        first, end = _whole(part, zone)
        if first is not None and end is not None and first >= end:
            return LocalDays({}, [part])
        versions = _read_versions(connection, query, first, end)
        if len(versions) > MAX_ROWS:
            return LocalDays({}, [part])
        days = _days_of(versions, first, end, zone)
    except OverflowError:  # at the calendar's ends
        return LocalDays({}, [part])
    aggregates: dict[datetime, Aggregate] = {}
    missing = []
    for start, stop in days:
        key: DayKey = (query.project, query.workflow, query.tz, start)
        version = _version(versions, start, stop)
        aggregate = day_cache.get(key, version)
        if aggregate is None:
            missing.append((start, stop, key, version))
        else:
            aggregates[start] = aggregate
    if missing:
        span = Part(Source.HOURS, missing[0][0], missing[-1][1])
        found = _read_hours(connection, query, span, zone)
        for start, _, key, version in missing:
            aggregate = aggregates[start] = found[start.astimezone(zone).date()]
            day_cache.put(key, version, aggregate)
    rest = []
    if part.first != first:
        rest.append(Part(part.source, part.first, first))
    if part.end != end:
        rest.append(Part(part.source, end, part.end))
    counting = {
        start: aggregate for start, aggregate in aggregates.items() if aggregate.counts_something
    }
    return LocalDays(counting, rest)


def begin_of(bucket: str | None, start: datetime, tz: str) -> datetime | None:
    """Return the start of the bucket that contains a day of this zone."""
    if bucket is None:
        return None
    zone = ZoneInfo(tz)
    day = start.astimezone(zone).date()
    if bucket == "week":
        day -= timedelta(days=day.weekday())
    if bucket == "month":
        day = day.replace(day=1)
    # With two midnights, or none, PostgreSQL's date_trunc returns the later of these.
    return max(begin_of_day(day, zone), begin_of_day(day, zone, fold=1))


def _whole(part: Part, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    """Return the start of the first whole day and the end of the last one."""
    first = end = None
    if part.first is not None:
        day = part.first.astimezone(zone).date()
        first = begin_of_day(day, zone)
        if first < part.first:
            first = begin_of_day(day + _DAY, zone)
    if part.end is not None:
        end = begin_of_day(part.end.astimezone(zone).date(), zone)
    return first, end


def _read_versions(
    connection: Connection, query: StatsQuery, first: datetime | None, end: datetime | None
) -> dict[datetime, Any]:
    """Return the version of the rows of each UTC day that these days overlap."""
    part = Part(
        Source.DAYS,
        None if first is None else floor_day(first),
        None if end is None else ceil_day(end),
    )
    rows = days_statement(query.form(part)).run(connection, query.parameters(part))
    return {day: tuple(version) for day, *version in rows}


def _days_of(
    utc_days: Iterable[datetime], first: datetime | None, end: datetime | None, zone: ZoneInfo
) -> list[tuple[datetime, datetime]]:
    """Return the whole local days that overlap these, as (start, end) in order."""
    dates = {
        at.astimezone(zone).date()
        for day in utc_days
        for at in (day, day + _DAY - timedelta.resolution)
    }
    spans = ((begin_of_day(day, zone), begin_of_day(day + _DAY, zone)) for day in sorted(dates))
    return [
        (start, stop)
        for start, stop in spans
        if (first is None or start >= first) and (end is None or stop <= end)
    ]


def _version(versions: dict[datetime, Any], start: datetime, stop: datetime) -> Any:
    day, found = floor_day(start), []
    while day < stop:
        found.append(versions.get(day))
        day += _DAY
    return tuple(found)


def _read_hours(
    connection: Connection, query: StatsQuery, part: Part, zone: ZoneInfo
) -> dict[date, Aggregate]:
    """Return the days of a span, added up from their hours."""
    by_day = query._replace(bucket="day")
    aggregates: dict[date, Aggregate] = defaultdict(Aggregate)
    for row in figures_statement(by_day.form(part)).run(connection, by_day.parameters(part)):
        aggregates[row.bucket.astimezone(zone).date()].add_figures(row)
    return aggregates
