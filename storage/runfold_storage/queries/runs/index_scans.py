"""Index scans: the indexes that can answer a part of a filter in the order of lists.

Invariant: every run that matches the filter lies on each of its scans, so any of them will do. They
differ in how many other runs they contain.

A scan reads one range of an index, or merges several. Late starts are a range of their own: all
other runs start within an hour of their first event, so a bound on the start bounds the scan.
"""

from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final, NamedTuple

from runfold_storage.filters.catalogue import Filter, Kind
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.tables import COSTLY_NANO_USD, LATE_AFTER, LONG_US, UNUSUAL_STATUSES

HOUR: Final = timedelta(hours=1)
Range = tuple[str, ...]
"""SQL conditions over the runs `r` that one range of an index answers."""


class IndexScan(NamedTuple):
    """Ranges of one index; `is_covering`: they contain exactly the filter's runs."""

    ranges: tuple[Range, ...]
    is_covering: bool


def index_scans_of(
    run_filter: RunFilter, *, has_first: bool, has_end: bool
) -> tuple[IndexScan, ...]:
    """Return all scans for the filter, the preferred one first.

    `has_first` and `has_end`: the parameters `first` and `end` bound the times of first events.
    For a filter with `started_after`, the parameter `early` is that of `early_of`.
    """
    bounds: Range = ()
    if has_first:
        bounds += ("r.created_at >= %(first)s::timestamptz",)
    if has_end:
        bounds += ("r.created_at < %(end)s::timestamptz",)
    if run_filter.started_before is not None:
        # Implied, since the first event of a run is never later than its start.
        bounds += ("r.created_at < %(started_before)s::timestamptz",)
    spans = [bounds]
    if run_filter.started_after is not None:
        early = "%(early)s::timestamptz"
        late = "r.indexed_late_start_at >= %(started_after)s::timestamptz"
        spans = [(*bounds, f"r.created_at >= {early}"), (*bounds, f"r.created_at < {early}", late)]
    is_unbounded = spans == [()]
    choices = _choices(run_filter) or [(RunFilter(), ((),))]
    return tuple(
        IndexScan(
            tuple(choice + span for choice, span in product(ranges, spans)),
            is_covering=is_unbounded and answered == run_filter,
        )
        for answered, ranges in choices
    )


def covering_scan(run_filter: RunFilter) -> IndexScan | None:
    """Return the only scan for the filter, if it contains no other runs."""
    scans = index_scans_of(run_filter, has_first=False, has_end=False)
    return scans[0] if len(scans) == 1 and scans[0].is_covering else None


def early_of(started_after: datetime) -> datetime:
    """Return the time before which only late starts can have a start since `started_after`."""
    first_of_all = datetime.min.replace(tzinfo=started_after.tzinfo)
    return started_after - min(LATE_AFTER, started_after - first_of_all)


def _choices(run_filter: RunFilter) -> list[tuple[RunFilter, tuple[Range, ...]]]:
    """Return each part of the filter that an index answers, and its ranges, in preference."""
    values = {each.stored_as: (each, value) for each, value in run_filter.given()}
    return [
        (RunFilter(**{name: values[name][1]}), ranges)
        for name in _INDEXED
        if name in values and (ranges := _ranges(*values[name]))
    ]


def _ranges(each: Filter, value: Any) -> tuple[Range, ...]:
    """Return the ranges of an index with this value, if any: some are indexed only if unusual."""
    if each.kind is Kind.STATUSES:
        if not set(value) <= set(UNUSUAL_STATUSES):
            return ()
        return tuple((f"r.indexed_status = %(status_{n})s::text",) for n in range(len(value)))
    if each.kind in _INDEXED_FROM:
        if value < _INDEXED_FROM[each.kind]:
            return ()
        return ((f"r.indexed_{each.column_name} >= %({each.stored_as})s::bigint",),)
    return ((f'r."{each.column_name}" = %({each.stored_as})s::text',),)


_INDEXED_FROM: Final = {Kind.DURATION: LONG_US, Kind.COST: COSTLY_NANO_USD}
_INDEXED: Final = (
    *("parent_run", "session", "fingerprint", "error_type", "user"),
    *("statuses", "min_duration_us", "min_cost_nano_usd"),
    *("workflow", "project", "trigger"),
)
"""Fields of a filter that an index answers, in the order of preference."""
