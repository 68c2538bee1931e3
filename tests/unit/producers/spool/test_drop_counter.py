"""How many events were dropped, on disk until Redis knows."""

import os
from pathlib import Path

import pytest

from runfold.spool.drop_counter import DropCounter, read_counters, report_abandoned
from runfold.spool.spool import redis_digest

HERE, ELSEWHERE = (redis_digest(f"redis://localhost:{port}/0") for port in (6379, 6380))


def test_nothing_is_touched_before_an_event_is_dropped(tmp_path: Path) -> None:
    """A program that drops nothing leaves no folder behind."""
    counter = DropCounter(tmp_path / "spool", HERE)
    counter.store(0)
    counter.sync()
    counter.close()
    assert os.listdir(tmp_path) == []


def test_the_number_is_the_last_one_stored(tmp_path: Path) -> None:
    """There is one file for each process, and none once Redis knows."""
    counter = DropCounter(tmp_path, HERE)
    for number in (3, 1000, 999):
        counter.store(number)
        assert [number for _, number in read_counters(tmp_path)] == [number]
    counter.store(0)
    assert os.listdir(tmp_path) == []


def test_a_number_is_reported_once_when_its_process_is_gone(tmp_path: Path) -> None:
    """As long as that lives it reports by itself."""
    counter = DropCounter(tmp_path, HERE)
    counter.store(7)
    reports: list[int] = []

    def report(number: int) -> bool:
        reports.append(number)
        return True

    assert report_abandoned(tmp_path, HERE, report) == 0
    counter.close()
    assert report_abandoned(tmp_path, ELSEWHERE, report) == 0
    assert report_abandoned(tmp_path, HERE, report) == 7
    assert report_abandoned(tmp_path, HERE, report) == 0
    assert reports == [7]
    assert os.listdir(tmp_path) == []


def test_what_is_dropped_after_the_end_is_counted_on_top(tmp_path: Path) -> None:
    """What was left to others is not counted again."""
    counter = DropCounter(tmp_path, HERE)
    counter.store(7)
    counter.close()
    counter.store(7)
    assert sum(number for _, number in read_counters(tmp_path)) == 7
    counter.store(10)
    counter.close()
    assert report_abandoned(tmp_path, HERE, lambda _: True) == 10


def test_a_number_that_redis_does_not_take_stays(tmp_path: Path) -> None:
    """So does one whose reporter dies before it has deleted the file."""
    counter = DropCounter(tmp_path, HERE)
    counter.store(7)
    counter.close()
    assert report_abandoned(tmp_path, HERE, lambda _: False) == 0

    def die(_: int) -> bool:
        raise SystemExit

    with pytest.raises(SystemExit):
        report_abandoned(tmp_path, HERE, die)
    assert report_abandoned(tmp_path, HERE, lambda _: True) == 7


def test_a_folder_that_cannot_be_made_breaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log warns once that the number is not safe."""
    (tmp_path / "file").touch()
    counter = DropCounter(tmp_path / "file" / "spool", HERE)
    counter.store(1)
    counter.store(2)
    assert caplog.text.count("cannot be stored") == 1


def test_a_forked_child_leaves_its_parents_counter_alone(tmp_path: Path) -> None:
    """It closes its copy, and the lock is still the parent's."""
    counter = DropCounter(tmp_path, HERE)
    counter.store(7)
    if not (child := os.fork()):
        counter.abandon()
        counter.store(2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert report_abandoned(tmp_path, HERE, lambda _: True) == 2
    assert [number for _, number in read_counters(tmp_path)] == [7]
