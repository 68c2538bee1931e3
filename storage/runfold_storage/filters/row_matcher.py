"""The conditions of a filter in Python, for rows that are in memory.

They decide about a row as `RunFilter.conditions` does once it is stored; a test compares both.
"""

from collections.abc import Callable
from operator import eq, ge, le, lt
from typing import Any, Final

from runfold_storage.records.rows import RunRow

from .catalogue import Filter, Kind
from .run_filter import RunFilter

Match = Callable[[RunRow], bool]

_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {"=": eq, ">=": ge, "<=": le, "<": lt}


def match_of(run_filter: RunFilter) -> Match | None:
    """Return a function that matches rows; None if only PostgreSQL can: texts, fingerprints."""
    given = run_filter.given()
    if any(not hasattr(RunRow, each.column_name) for each, _ in given):
        return None
    checks = [_check(each, value) for each, value in given]
    return lambda row: all(check(row) for check in checks)


def _check(each: Filter, value: Any) -> Match:
    if each.kind is Kind.STATUSES:
        return lambda row: row.status in value
    if each.kind is Kind.TAGS:
        tags = dict(value)
        return lambda row: row.tags is not None and tags.items() <= row.tags.items()
    column, compare = each.column_name, _OPERATORS[each.operator]

    def check(row: RunRow) -> bool:
        own = getattr(row, column)
        return own is not None and bool(compare(own, value))

    return check
