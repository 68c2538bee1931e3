"""Index scans: the indexes that can answer a part of a filter in the order of lists.

Invariant: every run that matches the filter lies on each of its scans, so any of them will do. They
differ in how many other runs they contain.

A scan reads one range of an index, or merges several. Late starts are a range of their own: all
other runs start within an hour of their first event, so a bound on the start bounds the scan.
"""

from collections.abc import Callable
from datetime import datetime
from itertools import product
from typing import Any, Final, NamedTuple

from runfold_storage.filters.catalogue import FILTERS
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.tables import COSTLY_NANO_USD, LATE_AFTER, LONG_US, UNUSUAL_STATUSES

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
        bounds += ("r.created_at >= CAST(%(first)s AS timestamptz)",)
    if has_end:
        bounds += ("r.created_at < CAST(%(end)s AS timestamptz)",)
    if run_filter.started_before is not None:
        # Implied, since the first event of a run is never later than its start.
        bounds += ("r.created_at < CAST(%(started_before)s AS timestamptz)",)
    spans = [bounds]
    if run_filter.started_after is not None:
        early = "CAST(%(early)s AS timestamptz)"
        late = "r.indexed_late_start_at >= CAST(%(started_after)s AS timestamptz)"
        spans = [
            (*bounds, f"r.created_at >= {early}"),
            (*bounds, f"r.created_at < {early}", late),
        ]
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
    found: list[tuple[RunFilter, tuple[Range, ...]]] = []
    for name, ranges_of in _INDEXED:
        value = getattr(run_filter, name)
        if value is not None and value != () and (ranges := ranges_of(name, value)):
            found.append((RunFilter(**{name: value}), ranges))
    return found


def _equal(name: str, _: str) -> tuple[Range, ...]:
    return ((f'r."{_COLUMNS[name]}" = CAST(%({name})s AS text)',),)


def _unusual_statuses(_: str, statuses: tuple[str, ...]) -> tuple[Range, ...]:
    if not set(statuses) <= set(UNUSUAL_STATUSES):
        return ()
    return tuple(
        (f"r.indexed_status = CAST(%(status_{n})s AS text)",) for n in range(len(statuses))
    )


def _long(name: str, least: int) -> tuple[Range, ...]:
    return ((f"r.indexed_duration_us >= CAST(%({name})s AS bigint)",),) if least >= LONG_US else ()


def _costly(name: str, least: int) -> tuple[Range, ...]:
    if least < COSTLY_NANO_USD:
        return ()
    return ((f"r.indexed_cost_nano_usd >= CAST(%({name})s AS bigint)",),)


_COLUMNS: Final = {each.stored_as: each.column_name for each in FILTERS}
_INDEXED: Final[tuple[tuple[str, Callable[[str, Any], tuple[Range, ...]]], ...]] = (
    *((name, _equal) for name in ("parent_run", "session", "fingerprint", "error_type", "user")),
    ("statuses", _unusual_statuses),
    ("min_duration_us", _long),
    ("min_cost_nano_usd", _costly),
    *((name, _equal) for name in ("workflow", "project", "trigger")),
)
"""Fields of a filter that an index answers, in the order of preference, and their ranges."""
