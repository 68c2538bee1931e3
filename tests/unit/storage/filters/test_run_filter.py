"""The parameters of reads: which values are valid, and how an error names those that are."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from runfold_storage.errors import BadParameter
from runfold_storage.filters.catalogue import FILTERS, FilterParameters
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.filters.validation import make_run_filter
from runfold_storage.parameters import check_name, check_number, parse_time
from runfold_storage.queries.stats.query import HOUR, make_stats_query, round_down, round_up


def test_several_statuses_in_any_order() -> None:
    """The order and repetition of statuses make no difference."""
    one = make_run_filter(status=["failed", "lost", "failed"])
    other = make_run_filter(status=("lost", "failed"))
    assert one.statuses == ("failed", "lost")
    assert one.cache_key() == other.cache_key()


def test_all_statuses_are_no_filter() -> None:
    """Asking for every status is asking for all runs."""
    every = ["queued", "running", "completed", "failed", "cancelled", "lost"]
    assert make_run_filter(status=every).cache_key() == make_run_filter().cache_key()


def test_unknown_status() -> None:
    """The error for an unknown status lists the known ones."""
    with pytest.raises(BadParameter, match=r"status: expected one of queued, .* got 'broken'"):
        make_run_filter(status="broken")


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "\ud800"])
def test_invalid_names(name: str) -> None:
    """No run can have such a name, and PostgreSQL is not queried."""
    with pytest.raises(BadParameter) as caught:
        check_name("project", name)
    assert caught.value.parameter == "project"


@pytest.mark.parametrize("number", [0, 501, True, 1.5, "7", None])
def test_numbers_out_of_bounds(number: object) -> None:
    """The error states the bounds."""
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
    """RFC 3339, a date alone, and a plus sign that a query string has turned into a space."""
    assert parse_time("since", text) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-11-21T02:00:00", "2026-13-01", "1700000000", "x" * 5000]
)
def test_invalid_times(text: str) -> None:
    """The error has an example; a time without a zone is ambiguous."""
    with pytest.raises(BadParameter, match="2026-11-21T02:00:00Z"):
        parse_time("since", text)


def test_times_beyond_the_calendar() -> None:
    """A time whose UTC value is beyond the calendar is an error."""
    edge = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    with pytest.raises(BadParameter, match="years 1 to 9999"):
        make_run_filter(started_after=edge)
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    query = make_stats_query(since=last - HOUR, until=last, now=last)
    assert query.since == query.until == datetime(9999, 1, 1, tzinfo=UTC)


def test_range_backwards() -> None:
    """An empty range is an error of the caller."""
    at = datetime(2026, 11, 21, tzinfo=UTC)
    with pytest.raises(BadParameter, match="started_before: must be later"):
        make_run_filter(started_after=at, started_before=at)


def test_hours() -> None:
    """A span is widened to whole hours."""
    at = datetime(2026, 11, 21, 2, 30, tzinfo=UTC)
    assert round_down(at, HOUR) == datetime(2026, 11, 21, 2, tzinfo=UTC)
    assert round_up(at, HOUR) == datetime(2026, 11, 21, 3, tzinfo=UTC)
    assert round_up(round_down(at, HOUR), HOUR) == round_down(at, HOUR)


EVERYTHING: dict[str, Any] = {
    "project": "p",
    "workflow": "w",
    "status": ["failed", "lost"],
    "trigger": "t",
    "user": "u",
    "session": "s",
    "tag": ["a:b", "c=d"],
    "started_after": datetime(2026, 1, 1, tzinfo=UTC),
    "started_before": datetime(2026, 2, 1, tzinfo=UTC),
    "min_duration_ms": 1,
    "max_duration_ms": 10**9,
    "min_cost_usd": 0.001,
    "max_cost_usd": 10**9,
    "error_type": "E",
    "fingerprint": "f",
    "parent_run": "r",
    "q": "env:prod",
    "payload": "x",
}


def test_the_catalogue_has_every_filter() -> None:
    """The catalogue, the fields of a filter and the keyword arguments are the same."""
    assert [each.stored_as for each in FILTERS] == list(RunFilter.__struct_fields__)
    assert [each.name for each in FILTERS] == list(FilterParameters.__annotations__)
    assert {each.name for each in FILTERS} == EVERYTHING.keys()


def test_unknown_filters_are_a_mistake_of_the_program() -> None:
    """A filter that were silently ignored would select too many runs."""
    with pytest.raises(TypeError, match="colour"):
        make_run_filter(colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize("prefix", ["", "f1_"])
def test_conditions_contain_no_values(prefix: str) -> None:
    """Every value is a parameter, and every parameter has a value."""
    run_filter = make_run_filter(**EVERYTHING)
    text = " AND ".join(run_filter.conditions("r", prefix=prefix))
    parameters = run_filter.parameters(prefix=prefix)
    assert set(re.findall(r"%\((\w+)\)s", text)) == parameters.keys()
    assert not re.search(r"'|failed|lost|prod|2026", text)
