"""What reads may be asked for, and how a refusal says what is allowed."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select

from runfold_storage.errors import BadParameter
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.filters.validation import make_run_filter
from runfold_storage.parameters import check_name, check_number, parse_time
from runfold_storage.postgres.statements import compile_statement
from runfold_storage.queries.stats.sources import ceil_hour, floor_hour
from runfold_storage.tables import runs


def test_several_statuses_in_any_order() -> None:
    """The same statuses are the same question, however they are given."""
    one = make_run_filter(status=["failed", "lost", "failed"])
    other = make_run_filter(status=("lost", "failed"))
    assert one.statuses == ("failed", "lost")
    assert one.cache_key() == other.cache_key()


def test_all_statuses_are_no_filter() -> None:
    """Asking for every status is asking for all runs."""
    every = ["queued", "running", "completed", "failed", "cancelled", "lost"]
    assert make_run_filter(status=every).cache_key() == make_run_filter().cache_key()


def test_unknown_status() -> None:
    """A status that does not exist is refused with those that do."""
    with pytest.raises(BadParameter, match=r"status: expected one of queued, .* got 'broken'"):
        make_run_filter(status="broken")


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "\ud800"])
def test_names_that_cannot_be(name: str) -> None:
    """No run can have such a name, and PostgreSQL is never asked."""
    with pytest.raises(BadParameter) as caught:
        check_name("project", name)
    assert caught.value.parameter == "project"


@pytest.mark.parametrize("number", [0, 501, True, 1.5, "7", None])
def test_numbers_out_of_bounds(number: object) -> None:
    """Bounds are part of the refusal."""
    with pytest.raises(BadParameter, match="limit: expected 1 to 500"):
        check_number("limit", number, 1, 500)  # type: ignore[arg-type]  # what callers do


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21T02:00:00Z", datetime(2026, 11, 21, 2, tzinfo=UTC)),
        ("2026-11-21T02:00:00+02:00", datetime(2026, 11, 21, 0, tzinfo=UTC)),
        ("2026-11-21T02:00:00 02:00", datetime(2026, 11, 21, 0, tzinfo=UTC)),
        ("2026-11-21T02:00:00.000001Z", datetime(2026, 11, 21, 2, 0, 0, 1, tzinfo=UTC)),
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    """RFC 3339, a date alone, and the plus sign that a query string turned into a space."""
    assert parse_time("since", text) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-11-21T02:00:00", "2026-13-01", "1700000000", "x" * 5000]
)
def test_texts_that_are_no_times(text: str) -> None:
    """Anything else is refused with an example; a time without a zone could mean two things."""
    with pytest.raises(BadParameter, match="2026-11-21T02:00:00Z"):
        parse_time("since", text)


def test_times_beyond_the_calendar() -> None:
    """An offset that leads out of the calendar is refused."""
    edge = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    with pytest.raises(BadParameter, match="years 1 to 9999"):
        make_run_filter(started_after=edge)
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert ceil_hour(last) == last


def test_range_backwards() -> None:
    """A range that holds nothing is a mistake of the caller."""
    at = datetime(2026, 11, 21, tzinfo=UTC)
    with pytest.raises(BadParameter, match="started_before: must be later"):
        make_run_filter(started_after=at, started_before=at)


def test_hours() -> None:
    """A span is widened to whole hours."""
    at = datetime(2026, 11, 21, 2, 30, tzinfo=UTC)
    assert floor_hour(at) == datetime(2026, 11, 21, 2, tzinfo=UTC)
    assert ceil_hour(at) == datetime(2026, 11, 21, 3, tzinfo=UTC)
    assert ceil_hour(floor_hour(at)) == floor_hour(at)


EVERYTHING: dict[str, tuple[Any, Any]] = {
    "project": ("p", "q"),
    "workflow": ("p", "q"),
    "trigger": ("p", "q"),
    "user": ("p", "q"),
    "session": ("p", "q"),
    "tag": ("a:b", ["c:d", "e:f"]),
    "started_after": (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
    "started_before": (datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC)),
    "min_duration_ms": (1, 2),
    "max_duration_ms": (3, 10**9),
    "min_cost_usd": (0.001, 0.002),
    "max_cost_usd": (1, 10**9),
    "error_type": ("p", "q"),
    "fingerprint": ("p", "q"),
    "parent_run": ("p", "q"),
    "q": ("p", "q"),
    "payload": ("p", "q"),
}
OTHERS: list[dict[str, Any]] = [
    {"status": "failed"},
    {"status": "lost"},
    {"status": ["failed", "lost"]},
    {"min_duration_ms": 10**6},
    {"min_cost_usd": 10},
    {"q": "env:prod"},
]


def test_values_share_a_form_and_meanings_do_not() -> None:
    """Statements are kept by forms, so one for each that makes other SQL, and no more."""
    stored = {"tag": "tags", "ms": "us", "usd": "nano_usd"}
    named = {re.sub(r"tag$|ms$|usd$", lambda end: stored[end[0]], name) for name in EVERYTHING}
    assert named | {"statuses"} == set(RunFilter.__struct_fields__)
    forms = []
    for name, (one, other) in EVERYTHING.items():
        form = make_run_filter(**{name: one}).form()
        assert form == make_run_filter(**{name: other}).form()
        forms.append(form)
    forms += [make_run_filter(**wanted).form() for wanted in [{}, *OTHERS]]
    assert len(set(forms)) == len(forms)


def test_a_form_has_no_values() -> None:
    """So that a statement that is given too little is refused, and not answered wrongly."""
    every = {name: value for name, (value, _) in EVERYTHING.items()}
    form = make_run_filter(**every | {"q": "env:prod"}).form()
    made = compile_statement(select(runs.c.run).where(*form.conditions()))
    assert made.parameters == {}
    needed = set(re.findall(r"%\((\w+)\)s", made.text))
    assert needed <= set(make_run_filter(**every | {"q": "env:prod"}).parameters())
