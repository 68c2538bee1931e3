"""One file of the spool: frames that could not be sent, in order.

A segment belongs to whoever holds its lock (`flock`), and the kernel lets go of that when the
process dies. It begins with 32 bytes: `RFSPOOL1`, a digest of the Redis that the events are for
(16 bytes), and up to where they have been sent (8). Then records: `RFR1`, the length of the frame
and the CRC-32 of all that follows (4 bytes each), the number of events (4), the shard and the
number of shards that the frame was packed for (2 each), and the packed frame. All numbers are
little-endian. A record is appended with one write; what a crash leaves of the last one is cut.
"""

import fcntl
import os
import struct
import time
import zlib
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple, Self

from runfold.crash_points import crash_point

from .pending_frame import PendingFrame

SUFFIX: Final = ".spool"
UNPUBLISHED: Final = ".new-"
SET_ASIDE: Final = ".corrupt"

_MAGIC: Final = b"RFSPOOL1"
_HEADER: Final = struct.Struct("<8s16sQ")
_SENT_AT: Final = 24
_MARK: Final = b"RFR1"
_RECORD: Final = struct.Struct("<4sII")
_ABOUT: Final = struct.Struct("<IHH")
_OVERHEAD: Final = _RECORD.size + _ABOUT.size


class Segment:
    """`waiting`: its parcels that are not in Redis yet, in order."""

    def __init__(self, path: Path, descriptor: int, end: int) -> None:
        self.path = path
        self.end = end
        self.waiting: deque[PendingFrame] = deque()
        self.is_synced = True
        self.unreadable = 0
        self.cut_bytes = 0
        self._descriptor = descriptor

    @classmethod
    def create(cls, folder: Path, target: bytes) -> Self:
        """A new one of ours; nobody sees it before it is locked and has its header."""
        crash_point("before_segment_create")
        path, descriptor = publish(folder, SUFFIX, _HEADER.pack(_MAGIC, target, _HEADER.size))
        return cls(path, descriptor, _HEADER.size)

    @classmethod
    def adopt(cls, path: Path, target: bytes) -> Self | None:
        """One whose owner is dead, with its parcels; `None`: alive, gone, or for another Redis."""
        descriptor = open_abandoned(path)
        if descriptor is None:
            return None
        try:
            content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        except OSError:
            os.close(descriptor)
            return None
        has_header = len(content) >= _HEADER.size and content.startswith(_MAGIC)
        if has_header and content[8:_SENT_AT] != target:
            os.close(descriptor)
            return None
        segment = cls(path, descriptor, len(content))
        crash_point("before_segment_adopt")
        if has_header:
            segment._read_records(content)
        else:  # for which Redis it was is not known, so nothing of it may be sent
            segment.unreadable = 1
        return segment

    def append(self, parcel: PendingFrame) -> None:
        """Write a parcel's frame to the end; when that fails, the file is as it was before."""
        about = _ABOUT.pack(parcel.count, parcel.shard, parcel.shards)
        check = zlib.crc32(parcel.frame, zlib.crc32(about))
        record = _RECORD.pack(_MARK, len(parcel.frame), check) + about + parcel.frame
        crash_point("before_spool_write")
        half = record[: len(record) // 2]
        crash_point("in_spool_write", lambda: _write(self._descriptor, half, self.end))
        try:
            _write(self._descriptor, record, self.end)
        except OSError:
            os.ftruncate(self._descriptor, self.end)
            raise
        crash_point("after_spool_write")
        self.is_synced = False
        parcel.lies_in(self, self.end, len(parcel.frame), check)
        self.waiting.append(parcel)
        self.end += len(record)

    def read(self, parcel: PendingFrame) -> bytes:
        """The frame of a parcel; raises `OSError` when it is not what was written."""
        about = _ABOUT.pack(parcel.count, parcel.shard, parcel.shards)
        frame = os.pread(self._descriptor, parcel.length, parcel.offset + _OVERHEAD)
        if zlib.crc32(frame, zlib.crc32(about)) != parcel.check:
            raise OSError(f"{self.path}: the record at {parcel.offset} has changed on disk")
        return frame

    def note_sent(self) -> None:
        """Remember how far it is sent, so that a later process begins there."""
        sent = None
        while self.waiting and self.waiting[0].settled:
            parcel = self.waiting.popleft()
            sent = parcel.offset + _OVERHEAD + parcel.length
        if sent is not None and self.waiting:
            crash_point("before_segment_progress")
            _write(self._descriptor, struct.pack("<Q", sent), _SENT_AT)
            crash_point("after_segment_progress")

    def sync(self) -> None:
        """From now on it outlives a loss of power."""
        if not self.is_synced:
            crash_point("before_spool_sync")
            os.fsync(self._descriptor)
            self.is_synced = True
            crash_point("after_spool_sync")

    def delete(self) -> None:
        """Everything that could be read of it is sent; what could not be is kept for a person."""
        crash_point("before_segment_delete")
        if self.unreadable:
            self.path.rename(self.path.with_name(self.path.name + SET_ASIDE))
        else:
            self.path.unlink(missing_ok=True)
        crash_point("after_segment_delete")
        self.close()

    def close(self) -> None:
        """Let go of the file, and with it of the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _read_records(self, content: bytes) -> None:
        """Find the parcels; a torn tail is cut, what is broken in the middle is stepped over."""
        at = sent_to = _HEADER.unpack_from(content)[2]
        if sent_to != len(content) and _read_record(content, sent_to) is None:
            at = _HEADER.size  # whatever stands there, no record begins where it points to
        while at < len(content):
            parcel = _read_record(content, at)
            if parcel is None:
                following = _find_record(content, at)
                if following is None and _is_torn(content, at):
                    self._cut_tail(at, len(content))
                    return
                self.unreadable += 1
                at = len(content) if following is None else following
                continue
            parcel.lies_in(self, at, parcel.length, parcel.check)
            self.waiting.append(parcel)
            at += _OVERHEAD + parcel.length

    def _cut_tail(self, at: int, end: int) -> None:
        crash_point("before_tail_cut")
        os.ftruncate(self._descriptor, at)
        self.end, self.cut_bytes = at, end - at


def publish(folder: Path, suffix: str, content: bytes) -> tuple[Path, int]:
    """Make a file of ours; no other process sees it before it is locked and has its content."""
    name = f"{time.time_ns():020}-{os.getpid()}-{os.urandom(4).hex()}{suffix}"
    unpublished = folder / f"{UNPUBLISHED}{name}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(unpublished, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(descriptor, content, 0)
        crash_point("before_segment_publish")
        unpublished.rename(folder / name)
    except OSError:
        os.close(descriptor)
        unpublished.unlink(missing_ok=True)
        raise
    return folder / name, descriptor


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_abandoned(path: Path) -> int | None:
    """Open and lock a file whose owner is dead; `None`: the owner lives, or the file is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except OSError:  # the owner lives
        pass
    os.close(descriptor)
    return None


class SegmentStats(NamedTuple):
    """What of a segment is not sent yet: `target` is None where its beginning is broken."""

    target: bytes | None
    events: int
    size: int
    in_use: bool
    """By a process that lives, which sends it itself."""
    is_whole: bool
    """Whether there is a record after each, up to the end."""


def inspect_segment(path: Path) -> SegmentStats:
    """Count what waits in a segment without its lock; raises `OSError` when it is gone.

    Reads no frame, so a damaged one is not noticed before it is sent.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Shared: whoever wants to send it just now finds it locked, and comes back later.
        in_use = not _is_free(descriptor)
        size = os.fstat(descriptor).st_size
        header = os.pread(descriptor, _HEADER.size, 0)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            return SegmentStats(None, 0, size, in_use, is_whole=False)
        _, target, sent_to = _HEADER.unpack(header)
        at, events = sent_to, 0
        while at + _OVERHEAD <= size:
            record = os.pread(descriptor, _OVERHEAD, at)
            mark, length, _ = _RECORD.unpack_from(record)
            if mark != _MARK or at + _OVERHEAD + length > size:
                break
            events += _ABOUT.unpack_from(record, _RECORD.size)[0]
            at += _OVERHEAD + length
        return SegmentStats(target, events, size - sent_to, in_use, is_whole=at == size)
    finally:
        os.close(descriptor)


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_record(content: bytes, at: int) -> PendingFrame | None:
    """The parcel that is recorded there; `None`: that is no whole record."""
    if len(content) - at < _OVERHEAD:
        return None
    mark, length, check = _RECORD.unpack_from(content, at)
    begin = at + _RECORD.size
    end = begin + _ABOUT.size + length
    if mark != _MARK or end > len(content) or zlib.crc32(content[begin:end]) != check:
        return None
    count, shard, shards = _ABOUT.unpack_from(content, begin)
    parcel = PendingFrame(shard, shards, b"", count, 0, own=False)
    parcel.length, parcel.check = length, check
    return parcel


def _find_record(content: bytes, at: int) -> int | None:
    """Where the next whole record begins."""
    following = content.find(_MARK, at + 1)
    while following >= 0:
        if _read_record(content, following) is not None:
            return following
        following = content.find(_MARK, following + 1)
    return None


def _is_torn(content: bytes, at: int) -> bool:
    """Whether a crash while writing explains it: there is less than was to be written."""
    rest = content[at:]
    if len(rest) < _OVERHEAD or not rest.strip(b"\0"):
        return True
    mark, length, _ = _RECORD.unpack_from(rest)
    return bool(mark == _MARK and len(rest) < _OVERHEAD + length)


def _write(descriptor: int, content: bytes, at: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, at)
        content, at = content[written:], at + written
