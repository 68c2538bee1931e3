"""Parameters that say which runs are meant, checked.

Every check raises `BadParameter` with the parameter's name and what is allowed, so that nothing
that a caller can write reaches the database as an error.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import check_choice, check_name, check_storable, check_time, shown
from runfold_storage.tables import RUN_STATUSES

from .run_filter import RunFilter

MAX_TAG: Final = 2000
MAX_TAGS: Final = 20
MAX_BOUND: Final = 1_000_000_000


def make_run_filter(
    *,
    project: str | None = None,
    workflow: str | None = None,
    status: str | Iterable[str] | None = None,
    trigger: str | None = None,
    user: str | None = None,
    session: str | None = None,
    tag: str | Iterable[str] | None = None,
    started_after: datetime | None = None,
    started_before: datetime | None = None,
    min_duration_ms: float | None = None,
    max_duration_ms: float | None = None,
    min_cost_usd: float | None = None,
    max_cost_usd: float | None = None,
    error_type: str | None = None,
    fingerprint: str | None = None,
    parent_run: str | None = None,
    q: str | None = None,
    payload: str | None = None,
) -> RunFilter:
    """A checked filter: `started_after` and all the `min_` and `max_` are inclusive.

    `started_before` is exclusive; a `tag` is `key:value` or `key=value`, and a run must have all.
    `q` is searched for in workflow, id, tags, type and message of the error; `payload` in inputs
    and outputs, of projects whose payloads are searched; case does not matter.
    """
    after = check_time("started_after", started_after)
    before = check_time("started_before", started_before)
    if after is not None and before is not None and after >= before:
        raise BadParameter("started_before", "must be later than started_after")
    return RunFilter(
        project=check_name("project", project),
        workflow=check_name("workflow", workflow),
        statuses=_check_statuses(status),
        trigger=check_name("trigger", trigger),
        user=check_name("user", user),
        session=check_name("session", session),
        tags=_check_tags(tag),
        started_after=after,
        started_before=before,
        **_check_bounds("duration_ms", min_duration_ms, max_duration_ms, "duration_us", 1000),
        **_check_bounds("cost_usd", min_cost_usd, max_cost_usd, "cost_nano_usd", 10**9),
        error_type=check_name("error_type", error_type),
        fingerprint=check_name("fingerprint", fingerprint),
        parent_run=check_name("parent_run", parent_run),
        q=check_name("q", q),
        payload=check_name("payload", payload),
    )


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
    given = [tag] if isinstance(tag, str) else list(tag)
    wanted: dict[str, str] = {}
    for text in given:
        key, separator, value = _tag_of(text)
        if not separator or not key or len(text) > MAX_TAG:
            raise BadParameter("tag", f"expected key:value or key=value, got {shown(text)}")
        check_storable("tag", text)
        if wanted.setdefault(key, value) != value:
            raise BadParameter("tag", f"no run has two values of {shown(key)}")
    if len(wanted) > MAX_TAGS:
        raise BadParameter("tag", f"at most {MAX_TAGS} of them")
    return tuple(sorted(wanted.items()))


def _tag_of(text: Any) -> tuple[str, str, str]:
    """A key may have a colon if an equals sign follows it, as `aws:region=eu` has."""
    if not isinstance(text, str):
        return "", "", ""
    return text.partition("=" if "=" in text else ":")


def _check_bounds(
    name: str, least: float | None, most: float | None, stored: str, unit: int
) -> dict[str, int | None]:
    bounds: dict[str, int | None] = {}
    for side, value in (("min", least), ("max", most)):
        bounds[f"{side}_{stored}"] = None
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= MAX_BOUND:
            raise BadParameter(f"{side}_{name}", f"expected 0 to {MAX_BOUND:,}, got {shown(value)}")
        bounds[f"{side}_{stored}"] = round(value * unit)
    if least is not None and most is not None and least > most:
        raise BadParameter(f"max_{name}", f"must not be less than min_{name}")
    return bounds
