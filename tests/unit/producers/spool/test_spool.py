"""The folder of segments."""

import os
from pathlib import Path

import pytest

from runfold import Logged
from runfold.delivery.frame_packer import FramePacker
from runfold.serialization.redaction import Redactor
from runfold.spool.pending_frame import PendingFrame
from runfold.spool.segment import Segment
from runfold.spool.spool import Spool, target_of

URL = "redis://localhost:6379/0"


def parcel(number: int, size: int = 10) -> PendingFrame:
    text = os.urandom(size).hex()
    [packed], _ = FramePacker(Redactor()).pack([(Logged(text=text), "r", number, 0, 10, True)], 4)
    return packed


def test_nothing_is_touched_before_it_is_needed(tmp_path: Path) -> None:
    """A program that never loses Redis leaves no folder behind."""
    spool = Spool(tmp_path / "spool", 2**30, target_of(URL))
    assert spool.adopt() == []
    spool.note_sent()
    spool.close()
    assert os.listdir(tmp_path) == []


def test_full_segments_are_followed_by_others(tmp_path: Path) -> None:
    """And each is deleted once everything in it is sent."""
    spool = Spool(tmp_path, 4 * 2**20, target_of(URL))
    parcels = [parcel(number, 200_000) for number in range(12)]
    assert all(spool.keep(one) for one in parcels)
    assert len(os.listdir(tmp_path)) > 2
    for one in parcels[:-1]:
        one.settled = True
    spool.note_sent()
    assert len(os.listdir(tmp_path)) == 1
    parcels[-1].settled = True
    spool.note_sent()
    assert os.listdir(tmp_path) == []
    spool.close()


def test_the_cap_holds_for_all_processes_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A second spool in the folder counts what the first one has written."""
    first, second = (Spool(tmp_path, 2**20, target_of(URL)) for _ in range(2))
    kept = [spool.keep(parcel(0, 60_000)) for _ in range(12) for spool in (first, second)]
    assert kept[0]
    assert not kept[-1]
    a_segment_begun = 2**20 // 4
    size = sum((tmp_path / name).stat().st_size for name in os.listdir(tmp_path))
    assert size <= 2**20 + a_segment_begun
    assert "RUNFOLD_SPOOL_BYTES" in caplog.text
    first.close()
    second.close()


def test_a_segment_whose_name_could_be_lost_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder could not be synced: the next event tries anew instead of trusting the file."""
    spool = Spool(tmp_path, 2**30, target_of(URL))
    with monkeypatch.context() as patch:
        patch.setattr("runfold.spool.spool.sync_folder", refuse)
        assert not spool.keep(parcel(0))
        assert os.listdir(tmp_path) == []
    assert spool.keep(parcel(0))
    spool.close()


def refuse(_: Path) -> None:
    raise OSError("input/output error")


def test_orphans_are_adopted_oldest_first(tmp_path: Path) -> None:
    """One after the other, and never those of the living."""
    dead = [Spool(tmp_path, 2**30, target_of(URL)) for _ in range(2)]
    for number, spool in enumerate(dead):
        spool.keep(parcel(number))
    living = Spool(tmp_path, 2**30, target_of(URL))
    assert living.adopt() == []
    names = sorted(os.listdir(tmp_path))
    for spool in dead:
        spool.close()
    for name in names:
        [adopted] = living.adopt()
        assert isinstance(adopted.segment, Segment)
        assert adopted.segment.path.name == name
    assert living.adopt() == []
    living.close()


def test_what_was_never_begun_is_removed(tmp_path: Path) -> None:
    """A crash just before a segment was published leaves no litter."""
    (tmp_path / ".new-1-1-1.spool").touch()
    spool = Spool(tmp_path, 2**30, target_of(URL))
    assert spool.adopt() == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "is_same"),
    [
        ("redis://user:secret@localhost:6379/0", True),
        ("redis://localhost:6380/0", False),
        ("redis://localhost:6379/1", False),
        ("redis://elsewhere:6379/0", False),
        ("unix:///run/redis.sock", False),
    ],
)
def test_a_target_is_a_server_and_a_database(url: str, is_same: bool) -> None:
    """A new password does not strand what was spooled; another database is another Redis."""
    assert (target_of(url) == target_of(URL)) is is_same
