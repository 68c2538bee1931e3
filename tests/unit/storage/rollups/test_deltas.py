"""Statistics as differences."""

from oracle import HOUR_US, project
from runfold.protocol.ids import run_key_bytes
from runfold_storage.records.rollup import RollupDelta, RollupKey
from runfold_storage.records.rows import RunRow
from runfold_storage.rollups.deltas import RollupDeltas, add_run, scope_of
from runfold_storage.rollups.min_max import removed_durations

[RUN] = project(
    [
        {"type": "started", "run": "r", "id": 0, "at_us": HOUR_US + 5, "workflow": "w"},
        {"type": "completed", "run": "r", "id": 1, "at_us": HOUR_US + 8, "usage": {"cost_usd": 1}},
    ],
    shards=1,
).runs.values()


KEY = RollupKey("w", "default", "", HOUR_US, "completed", 0)


def counted(*rows: tuple[RunRow, int]) -> RollupDeltas:
    differences: RollupDeltas = {}
    for row, sign in rows:
        add_run(differences, scope_of(row), row, sign)
    return differences


def test_a_run_counts_in_the_hour_of_its_first_event() -> None:
    """Under its workflow, project, status and shard, with everything that is summed."""
    assert RUN.run == run_key_bytes("r")
    assert counted((RUN, 1)) == {KEY: RollupDelta(1, 0, 0, 1_000_000_000, {3: 1})}


def test_new_minus_old_of_the_same_row_changes_nothing() -> None:
    """So that what changes no figure writes no row."""
    [difference] = counted((RUN, -1), (RUN, 1)).values()

    assert not difference.is_nonzero
    assert removed_durations({KEY: difference}) == []


def test_a_duration_that_is_corrected_takes_the_old_one_back() -> None:
    """A minimum cannot be subtracted from, so the rollup has to be looked at again."""
    [difference] = counted((RUN, -1), (RUN._replace(duration_us=9), 1)).values()

    assert difference.durations == {3: -1, 9: 1}
    assert difference.is_nonzero
    assert removed_durations({KEY: difference}) == [(KEY, 3, 3)]


def test_hours_before_1970_begin_at_full_hours_too() -> None:
    """Division rounds down, not towards zero."""
    assert scope_of(RUN._replace(created_us=-1))[2] == -HOUR_US
