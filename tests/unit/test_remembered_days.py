"""Days that are remembered: only while their rows are the same, and only so many."""

from datetime import UTC, datetime, timedelta

from runfold_storage.remembered_days import RememberedDays

DAY = datetime(2026, 11, 20, tzinfo=UTC)


def test_another_version_is_another_day() -> None:
    """What was remembered of rows that have changed since is not given."""
    days = RememberedDays()
    key = ("acme", None, DAY)
    assert days.get(key, (1,)) is None
    days.put(key, (1,), {5: 2})
    assert days.get(key, (1,)) == {5: 2}
    assert days.get(key, (2,)) is None
    days.put(key, (2,), {5: 3})
    assert days.get(key, (1,)) is None
    assert days.get(key, (2,)) == {5: 3}


def test_what_was_not_asked_for_is_forgotten() -> None:
    """The least recent goes first."""
    days = RememberedDays(most=2)
    first, second, third = ((None, None, DAY + timedelta(days=n)) for n in range(3))
    days.put(first, 1, {})
    days.put(second, 1, {})
    assert days.get(first, 1) == {}
    days.put(third, 1, {})
    assert days.get(second, 1) is None
    assert days.get(first, 1) == days.get(third, 1) == {}
