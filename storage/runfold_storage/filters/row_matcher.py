"""The conditions of a filter in Python, for rows that are at hand.

They say of a row what SQL says of it once it is stored (`RunFilter.conditions`); a test asks both.
"""

from collections.abc import Callable
from typing import Any

from runfold_storage.records.rows import RunRow

from .run_filter import BOUNDS, EQUAL, RunFilter

Match = Callable[[RunRow], bool]


def match_of(wanted: RunFilter) -> Match | None:
    """Whether a row is of the filter; None where PostgreSQL alone can tell: texts, fingerprints."""
    if wanted.has_text or wanted.fingerprint is not None:
        return None
    checks = [
        _equal(column, value)
        for name, column in EQUAL.items()
        if (value := getattr(wanted, name)) is not None
    ]
    checks += [
        _bounded(column, compare, bound)
        for name, (column, compare) in BOUNDS.items()
        if (bound := getattr(wanted, name)) is not None
    ]
    if wanted.statuses:
        checks.append(lambda row: row.status in wanted.statuses)
    if wanted.tags:
        checks.append(_tagged(dict(wanted.tags)))
    return lambda row: all(check(row) for check in checks)


def _equal(column: str, value: str) -> Match:
    return lambda row: getattr(row, column) == value


def _bounded(column: str, compare: Callable[[Any, Any], Any], bound: Any) -> Match:
    def check(row: RunRow) -> bool:
        value = getattr(row, column)
        return value is not None and bool(compare(value, bound))

    return check


def _tagged(tags: dict[str, str]) -> Match:
    return lambda row: row.tags is not None and tags.items() <= row.tags.items()
