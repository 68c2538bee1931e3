"""Numbers and times for people."""

from datetime import UTC, datetime, timedelta

import pytest

from runfold_stack.terminal.formats import (
    BAR_WIDTH,
    TimeAxis,
    dollars,
    duration,
    number,
    percent,
    point_in_time,
)
from runfold_storage.errors import BadParameter
from watched_runs import NOON, node


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (None, ""),
        (0, "0 ms"),
        (0.0163, "0.016 ms"),
        (12.4, "12 ms"),
        (1000, "1.0 s"),
        (59_940, "59.9 s"),
        (59_960, "1m 00s"),
        (125_000, "2m 05s"),
        (11_220_000, "3h 07m"),
        (187_200_000, "2d 04h"),
    ],
)
def test_durations(milliseconds: float | None, shown: str) -> None:
    """The two largest units say enough."""
    assert duration(milliseconds) == shown


def test_a_share_is_whole_only_if_nothing_is_missing() -> None:
    """One failure in ten thousand is not 100%."""
    assert [percent(share) for share in (None, 0, 0.5, 0.99999, 1)] == [
        *("", "0%", "50%", "99.9%", "100%")
    ]


def test_numbers_and_money() -> None:
    """Large numbers are short, small amounts exact."""
    assert [number(n) for n in (0, 99_999, 123_456, 7_800_000)] == [
        *("0", "99,999", "123.5k", "7.8M")
    ]
    assert [dollars(usd) for usd in (0, 0.0042, 1234.5)] == ["", "$0.0042", "$1,234.50"]


def test_times_may_be_relative() -> None:
    """`2h` is two hours ago; RFC 3339 and dates are taken as they are."""
    assert point_in_time("--since", "2h", NOON) == datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert point_in_time("--since", "2026-11-20", NOON) == datetime(2026, 11, 20, tzinfo=UTC)
    assert point_in_time("--since", None, NOON) is None
    with pytest.raises(BadParameter, match="--since"):
        point_in_time("--since", "yesterday", NOON)


def test_bars_lie_where_the_nodes_ran() -> None:
    """What runs reaches to the end; what has not started has none."""
    half = NOON + timedelta(seconds=5)
    nodes = [
        node("a", started_at=NOON, finished_at=half),
        node("b", started_at=half),
        node("c"),
    ]
    now = NOON + timedelta(seconds=10)
    axis = TimeAxis(nodes, now)

    assert [axis.bar(each) for each in nodes] == [
        "━" * (BAR_WIDTH // 2),
        " " * (BAR_WIDTH // 2) + "━" * (BAR_WIDTH // 2),
        "",
    ]
    assert TimeAxis([node("c")], now).bar(node("c")) == ""
