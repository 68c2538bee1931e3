"""Whole days, of UTC or of another time zone: added up once, and cached.

Invariant: every transaction that changes an hour also changes the row of its UTC day (`rollups`).
So a day is unchanged as long as the rows of the UTC days that it overlaps are, which their versions
(`day_versions`) show.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from runfold_storage.postgres.connections import ReadConnection

from . import sql
from .aggregate import Aggregate
from .day_cache import DayCache, DayKey
from .query import DAY, Part, Source, StatsQuery, begin_of_day, round_down, round_up

Span = tuple[datetime, datetime]
_UTC: Final = ZoneInfo("UTC")


def read_days(
    connection: ReadConnection, query: StatsQuery, part: Part, day_cache: DayCache
) -> tuple[dict[datetime, Aggregate], list[Part]]:
    """Return the figures of a part's whole days by their start, and the parts before and after."""
    zone = ZoneInfo(query.day_zone)
    first, end = _whole_days(part, zone)
    if first >= end:
        return {}, [part]
    utc_days = Part(Source.DAYS, round_down(first, DAY), round_up(end, DAY))
    rows = connection.execute(sql.day_versions(query), query.parameters(utc_days)).fetchall()
    versions = {row.day: tuple(row[1:]) for row in rows}
    found: dict[datetime, Aggregate] = {}
    missing: list[tuple[Span, DayKey, Any]] = []
    for start, stop in _days_of(versions, first, end, zone):
        key = (query.project, query.workflow, query.day_zone, start)
        version = _version(versions, start, stop)
        aggregate = day_cache.get(key, version)
        if aggregate is None:
            missing.append(((start, stop), key, version))
        else:
            found[start] = aggregate
    if missing:
        read = _read_days(connection, query, [span for span, _, _ in missing], zone)
        for (start, _), key, version in missing:
            aggregate = found[start] = read[start.astimezone(zone).date()]
            day_cache.put(key, version, aggregate)
    counting = {start: each for start, each in found.items() if each.counts_something}
    return counting, part._replace(source=Source.HOURS).around(first, end)


def bucket_of(bucket: str | None, start: datetime, tz: str) -> datetime | None:
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


def _whole_days(part: Part, zone: ZoneInfo) -> Span:
    """Return the start of the first whole day and the end of the last one."""
    day = part.first.astimezone(zone).date()
    first = begin_of_day(day, zone)
    if first < part.first:
        first = begin_of_day(day + DAY, zone)
    return first, begin_of_day(part.end.astimezone(zone).date(), zone)


def _days_of(
    utc_days: Iterable[datetime], first: datetime, end: datetime, zone: ZoneInfo
) -> list[Span]:
    """Return the whole days of the zone that overlap these, in order."""
    if zone is _UTC:
        return [(day, day + DAY) for day in sorted(utc_days)]
    dates = {
        at.astimezone(zone).date()
        for day in utc_days
        for at in (day, day + DAY - timedelta.resolution)
    }
    spans = ((begin_of_day(day, zone), begin_of_day(day + DAY, zone)) for day in sorted(dates))
    return [(start, stop) for start, stop in spans if first <= start and stop <= end]


def _version(versions: dict[datetime, Any], start: datetime, stop: datetime) -> Any:
    day, found = round_down(start, DAY), []
    while day < stop:
        found.append(versions.get(day))
        day += DAY
    return tuple(found)


def _read_days(
    connection: ReadConnection, query: StatsQuery, days: Sequence[Span], zone: ZoneInfo
) -> dict[date, Aggregate]:
    """Return the days, and maybe days in between, added up from their rows or their hours."""
    found: dict[date, Aggregate] = defaultdict(Aggregate)
    hours = Part(Source.HOURS, days[0][0], days[-1][1])
    parameters = query.parameters(hours)
    if zone is _UTC:
        parameters["wanted"] = [start for start, _ in days]
        for row in connection.execute(sql.day_rows(query), parameters):
            aggregate = found[row.day.date()]
            aggregate.add(row)
            aggregate.add_bins(row.bins, row.bin_counts)
    else:
        by_day = query._replace(bucket="day")
        for row in connection.execute(sql.figures(by_day, hours), parameters):
            found[row.bucket.astimezone(zone).date()].add_figures(row)
    return found
