"""What workers announce: understood as it was meant, or not at all."""

from typing import Any

import msgspec
import pytest

from oracle import project
from runfold_storage.change_feed import notifications
from runfold_storage.change_feed.notifications import decode_notification, encode_notification
from runfold_storage.change_feed.reader import Change, Changes
from runfold_storage.records.rows import Batch, PositionUpdate, RunRow

[FIRST, SECOND] = sorted(
    project(
        [
            {"type": "started", "run": "a", "id": 0, "at_us": 5, "workflow": "w", "tags": {"a": 1}},
            {"type": "started", "run": "b", "id": 0, "at_us": 6, "workflow": "w"},
            {"type": "failed", "run": "b", "id": 1, "at_us": 9, "error": {"type": "E"}},
        ],
        shards=1,
    ).runs.values(),
    key=lambda row: row.created_us,
)
ELSEWHERE = FIRST._replace(shard=1)


def a_batch(reached: dict[int, int], **runs: list[tuple[RunRow, int]]) -> Batch:
    advances = [
        PositionUpdate(shard, "0-0", 0, "1-0", 1, last, None) for shard, last in reached.items()
    ]
    return Batch(advances=advances, **runs)  # type: ignore[arg-type]  # new_runs, changed_runs


def announced(reached: dict[int, int], **runs: list[tuple[RunRow, int]]) -> Any:
    return decode_notification(encode_notification(a_batch(reached, **runs), with_runs=True))


def test_rows_come_as_they_were_committed() -> None:
    """With the numbers of their changes, and whether they are new."""
    found = announced({0: 9}, changed_runs=[(FIRST, 9)], new_runs=[(SECOND, 8)]).behind((7, 3))
    assert found.changes == Changes(
        (9, 3), [Change(0, 8, SECOND.run, None, True), Change(0, 9, FIRST.run)]
    )
    assert found.rows == {(0, FIRST.run): FIRST, (0, SECOND.run): SECOND}


def test_who_is_further_on_is_told_the_rest() -> None:
    """It has read what the others were about."""
    message = announced({0: 9, 1: 2}, changed_runs=[(FIRST, 8), (SECOND, 9), (ELSEWHERE, 2)])
    assert [change.change_seq for change in message.behind((8, 2)).changes.changed] == [9]
    assert message.behind((9, 2)).changes == Changes((9, 2), [])
    assert message.behind((12, 4)).changes == Changes((12, 4), [])


@pytest.mark.parametrize(
    "cursor",
    [(6, 1), (7, 0), (7,), ()],
    ids=["a change is missing", "of another shard", "a shard is unknown", "all are"],
)
def test_a_gap_has_to_be_read(cursor: tuple[int, ...]) -> None:
    """Wherever the gap is, no part of the notification is used."""
    message = announced({0: 8, 1: 2}, changed_runs=[(FIRST, 8), (ELSEWHERE, 2)])
    assert message.behind((7, 1)) is not None
    assert message.behind(cursor) is None


def test_a_number_without_its_row_has_to_be_read() -> None:
    """As after a deletion, which gives out numbers as well."""
    assert announced({0: 9}, changed_runs=[(FIRST, 8)]).behind((7,)) is None


def test_a_batch_that_changed_nothing_is_no_gap() -> None:
    """Heartbeats have no numbers."""
    assert announced({0: 7}).behind((7,)).changes == Changes((7,), [])


def test_no_rows_for_nobody_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it says how far the feed goes, and is read."""
    batch = a_batch({0: 8}, changed_runs=[(FIRST, 7), (SECOND, 8)])
    unheard = decode_notification(encode_notification(batch, with_runs=False))
    assert unheard is not None
    assert (unheard.reached, unheard.runs) == ({0: 8}, None)
    assert unheard.behind((6,)) is None
    assert len(announced({0: 8}, changed_runs=batch.changed_runs).runs) == 2
    for name, most in (("MOST_BYTES", 60), ("MOST_RUNS", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(notifications, name, most)
            assert announced({0: 8}, changed_runs=batch.changed_runs).runs is None


@pytest.mark.parametrize(
    "message",
    [b"", b'{"0": 88}', b"\xc1", msgspec.msgpack.encode([2, {0: 8}, []]), b"\x93\x01\x80"],
    ids=["empty", "of an old worker", "broken", "of a newer one", "cut off"],
)
def test_what_is_not_understood_is_none(message: bytes) -> None:
    """Its reader looks for itself."""
    assert decode_notification(message) is None
