"""One file of the spool."""

import os
from pathlib import Path

import pytest

from runfold import Logged
from runfold.delivery.frame_packer import FramePacker
from runfold.protocol.frames import envelopes_in
from runfold.serialization.redaction import Redactor
from runfold.spool.segment import PendingFrame, Segment

TARGET = b"0123456789abcdef"


def frame(number: int) -> PendingFrame:
    [packed], _ = FramePacker(Redactor()).pack([(Logged(text="x"), "r", number, 0, 10, True)], 4)
    return packed


def fill(folder: Path, count: int) -> Segment:
    segment = Segment.create(folder, TARGET)
    for number in range(count):
        segment.append(frame(number))
    return segment


def ids(segment: Segment) -> list[int]:
    return [one.id for waiting in segment.waiting for one in envelopes_in(segment.read(waiting))]


def adopt(path: Path) -> Segment:
    segment = Segment.adopt(path, TARGET)
    assert segment is not None
    return segment


def test_what_was_appended_can_be_read(tmp_path: Path) -> None:
    """By the same process, and after its death by another one, with shard and count."""
    segment = fill(tmp_path, 3)
    assert ids(segment) == [0, 1, 2]
    assert segment.waiting[0].packed == b""
    segment.close()
    adopted = adopt(segment.path)
    assert ids(adopted) == [0, 1, 2]
    assert {(one.count, one.shards, one.own) for one in adopted.waiting} == {(1, 4, False)}
    adopted.close()


def test_a_segment_has_one_owner(tmp_path: Path) -> None:
    """While one process holds it, no other can adopt it."""
    segment = fill(tmp_path, 1)
    assert Segment.adopt(segment.path, TARGET) is None
    segment.close()
    adopted = adopt(segment.path)
    assert Segment.adopt(segment.path, TARGET) is None
    adopted.close()


def test_a_segment_for_another_redis_is_left_alone(tmp_path: Path) -> None:
    """A process that records there will adopt it."""
    segment = fill(tmp_path, 1)
    segment.close()
    assert Segment.adopt(segment.path, b"another redis...") is None
    adopt(segment.path).close()


def test_a_deleted_segment_cannot_be_adopted(tmp_path: Path) -> None:
    """Its owner has sent it just now."""
    segment = fill(tmp_path, 1)
    segment.delete()
    assert Segment.adopt(segment.path, TARGET) is None


def test_sending_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What is acknowledged in order is not sent again by a later process."""
    segment = fill(tmp_path, 4)
    for one in (0, 1, 3):
        segment.waiting[one].settled = True
    segment.record_progress()
    segment.close()
    adopted = adopt(segment.path)
    assert ids(adopted) == [2, 3]
    adopted.close()


def test_wrong_progress_costs_a_repetition(tmp_path: Path) -> None:
    """An offset at which no record begins is ignored."""
    segment = fill(tmp_path, 2)
    segment.close()
    content = bytearray(segment.path.read_bytes())
    content[24] += 1
    segment.path.write_bytes(content)
    adopted = adopt(segment.path)
    assert ids(adopted) == [0, 1]
    assert not adopted.unreadable_records
    adopted.close()


@pytest.mark.parametrize("cut", [1, 5, 30, 60])
def test_a_torn_tail_is_cut(tmp_path: Path, cut: int) -> None:
    """Wherever the write of the last record stopped, the others are whole."""
    segment = fill(tmp_path, 3)
    last = segment.waiting[2].offset
    segment.close()
    os.truncate(segment.path, last + cut)
    adopted = adopt(segment.path)
    assert ids(adopted) == [0, 1]
    assert (adopted.cut_bytes, adopted.unreadable_records) == (cut, 0)
    assert segment.path.stat().st_size == last
    adopted.close()


def test_zeros_at_the_end_are_cut(tmp_path: Path) -> None:
    """Some file systems leave them after a loss of power."""
    segment = fill(tmp_path, 2)
    segment.close()
    os.truncate(segment.path, segment.end + 5000)
    adopted = adopt(segment.path)
    assert ids(adopted) == [0, 1]
    assert (adopted.cut_bytes, adopted.unreadable_records) == (5000, 0)
    adopted.close()


@pytest.mark.parametrize("broken", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 4, 8, 12, 25])
def test_a_damaged_record_is_skipped_and_set_aside(tmp_path: Path, broken: int, at: int) -> None:
    """Its neighbours are read; the file is set aside when they are sent."""
    segment = fill(tmp_path, 3)
    place = segment.waiting[broken].offset + at
    segment.close()
    content = bytearray(segment.path.read_bytes())
    content[place] ^= 0x40
    segment.path.write_bytes(content)
    adopted = adopt(segment.path)
    assert ids(adopted) == [number for number in range(3) if number != broken]
    was_cut = broken == 2 and at == 4  # a length that leads beyond the end looks like a torn write
    assert adopted.unreadable_records == (0 if was_cut else 1)
    adopted.delete()
    [left] = os.listdir(tmp_path) or [""]
    assert left.endswith("" if was_cut else ".corrupt")


def test_a_record_that_changed_on_disk_is_not_sent(tmp_path: Path) -> None:
    """The checksum is looked at when it is read back."""
    segment = fill(tmp_path, 1)
    content = bytearray(segment.path.read_bytes())
    content[-1] ^= 1
    segment.path.write_bytes(content)
    with pytest.raises(OSError, match="has changed on disk"):
        segment.read(segment.waiting[0])
    segment.close()
