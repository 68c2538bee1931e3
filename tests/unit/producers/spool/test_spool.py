"""The folder of segments."""

import os
from pathlib import Path

import pytest

from runfold import Logged
from runfold.delivery.frame_packer import FramePacker
from runfold.serialization.redaction import Redactor
from runfold.spool.segment import PendingFrame, Segment
from runfold.spool.spool import Spool, redis_digest

URL = "redis://localhost:6379/0"


def frame(number: int, size: int = 10) -> PendingFrame:
    text = os.urandom(size).hex()
    [packed], _ = FramePacker(Redactor()).pack([(Logged(text=text), "r", number, 0, 10, True)], 4)
    return packed


def test_nothing_is_touched_before_it_is_needed(tmp_path: Path) -> None:
    """A program that never loses Redis leaves no folder behind."""
    spool = Spool(tmp_path / "spool", 2**30, redis_digest(URL))
    assert spool.adopt() == []
    spool.record_progress()
    spool.close()
    assert os.listdir(tmp_path) == []


def test_full_segments_are_followed_by_others(tmp_path: Path) -> None:
    """Each is deleted once everything in it is sent."""
    spool = Spool(tmp_path, 4 * 2**20, redis_digest(URL))
    frames = [frame(number, 200_000) for number in range(12)]
    assert all(spool.append(one) for one in frames)
    assert len(os.listdir(tmp_path)) > 2
    for one in frames[:-1]:
        one.settled = True
    spool.record_progress()
    assert len(os.listdir(tmp_path)) == 1
    frames[-1].settled = True
    spool.record_progress()
    assert os.listdir(tmp_path) == []
    spool.close()


def test_the_cap_holds_for_all_processes_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A second spool in the folder counts what the first one has written."""
    first, second = (Spool(tmp_path, 2**20, redis_digest(URL)) for _ in range(2))
    kept = [spool.append(frame(0, 60_000)) for _ in range(12) for spool in (first, second)]
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
    spool = Spool(tmp_path, 2**30, redis_digest(URL))
    with monkeypatch.context() as patch:
        patch.setattr("runfold.spool.spool.sync_folder", refuse)
        assert not spool.append(frame(0))
        assert os.listdir(tmp_path) == []
    assert spool.append(frame(0))
    spool.close()


def refuse(_: Path) -> None:
    raise OSError("input/output error")


def test_orphans_are_adopted_oldest_first(tmp_path: Path) -> None:
    """One after the other, and never those of living processes."""
    dead = [Spool(tmp_path, 2**30, redis_digest(URL)) for _ in range(2)]
    for number, spool in enumerate(dead):
        spool.append(frame(number))
    living = Spool(tmp_path, 2**30, redis_digest(URL))
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
    spool = Spool(tmp_path, 2**30, redis_digest(URL))
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
    assert (redis_digest(url) == redis_digest(URL)) is is_same
