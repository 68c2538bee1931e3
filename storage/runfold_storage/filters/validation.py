"""Check the parameters that select runs.

Every check raises `BadParameter` with the name of the parameter and the allowed values, so that no
input of a caller reaches the database as an error.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final, Unpack

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import (
    check_choice,
    check_keywords,
    check_name,
    check_storable,
    check_time,
    shown,
)
from runfold_storage.tables import RUN_STATUSES

from .catalogue import FILTERS, Filter, FilterParameters, Kind
from .run_filter import RunFilter

MAX_TAG: Final = 2000
MAX_TAGS: Final = 20
MAX_BOUND: Final = 1_000_000_000

_UNITS: Final = {Kind.DURATION: 1000, Kind.COST: 10**9}


def make_run_filter(**given: Unpack[FilterParameters]) -> RunFilter:
    """Return a checked filter: `started_after` and all `min_` and `max_` bounds are inclusive.

    `started_before` is exclusive; a `tag` is `key:value` or `key=value`, and a run must have all.
    `q` is searched for in workflow, id, tags, error type and message; `payload` in inputs and
    outputs, in projects that enable it; case does not matter.
    """
    check_keywords(given, FilterParameters)
    values: dict[str, Any] = dict(given)
    fields = {each.stored_as: _checked(each, values.get(each.name)) for each in FILTERS}
    for low, high in pairwise(FILTERS):
        if low.column_name == high.column_name:
            _check_range(low, high, fields[low.stored_as], fields[high.stored_as])
    return RunFilter(**fields)


def _checked(each: Filter, value: Any) -> Any:
    match each.kind:
        case Kind.STATUSES:
            return _check_statuses(value)
        case Kind.TAGS:
            return _check_tags(value)
        case Kind.TIME:
            return check_time(each.name, value)
        case Kind.DURATION | Kind.COST:
            return _check_bound(each.name, value, _UNITS[each.kind])
        case _:
            return check_name(each.name, value)


def _check_range(low: Filter, high: Filter, least: Any, most: Any) -> None:
    if least is None or most is None:
        return
    if high.operator == "<" and least >= most:
        raise BadParameter(high.name, f"must be later than {low.name}")
    if least > most:
        raise BadParameter(high.name, f"must not be less than {low.name}")


def _check_statuses(status: str | Iterable[str] | None) -> tuple[str, ...]:
    if status is None:
        return ()
    wanted = {status} if isinstance(status, str) else set(status)
    for value in sorted(wanted, key=str):
        check_choice("status", value, RUN_STATUSES)
    return () if wanted.issuperset(RUN_STATUSES) else tuple(sorted(wanted))


def _check_tags(tag: str | Iterable[str] | None) -> tuple[tuple[str, str], ...]:
    if tag is None:
        return ()
    wanted: dict[str, str] = {}
    for text in [tag] if isinstance(tag, str) else list(tag):
        # At `=`, else at `:`; so a key may contain a colon, as in `aws:region=eu`.
        is_text = isinstance(text, str)
        key, separator, value = text.partition("=" if "=" in text else ":") if is_text else [""] * 3
        if not separator or not key or len(text) > MAX_TAG:
            raise BadParameter("tag", f"expected key:value or key=value, got {shown(text)}")
        check_storable("tag", text)
        if wanted.setdefault(key, value) != value:
            raise BadParameter("tag", f"no run has two values of {shown(key)}")
    if len(wanted) > MAX_TAGS:
        raise BadParameter("tag", f"expected at most {MAX_TAGS} tags, got {len(wanted)}")
    return tuple(sorted(wanted.items()))


def _check_bound(name: str, value: float | None, unit: int) -> int | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= MAX_BOUND:
        raise BadParameter(name, f"expected 0 to {MAX_BOUND:,}, got {shown(value)}")
    return round(value * unit)
