"""A packed frame that is to be sent, and one file of the spool: frames that could not be, in order.

Format, with little-endian numbers: a header of 32 bytes with `RFSPOOL1`, the digest of the Redis
(16) and the offset up to which frames are sent (8). Then records: `RFR1`, the length of the frame
(4), the CRC-32 of everything after it (4), the number of events (4), the shard (2) and the number
of shards (2) that the frame was packed for, and the packed frame. One write appends a record.
"""

import fcntl
import os
import struct
import time
import zlib
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple, Self

from msgspec import Struct

from runfold.crash_points import crash_point

SUFFIX: Final = ".spool"
UNPUBLISHED: Final = ".new-"
SET_ASIDE: Final = ".corrupt"

_MAGIC: Final = b"RFSPOOL1"
_HEADER: Final = struct.Struct("<8s16sQ")
_SENT_AT: Final = 24
_RECORD_MAGIC: Final = b"RFR1"
_RECORD: Final = struct.Struct("<4sII")
_META: Final = struct.Struct("<IHH")
_OVERHEAD: Final = _RECORD.size + _META.size


class PendingFrame(Struct, eq=False):
    """`size`: bytes that its events use of the buffer's bound, unless `spooled` is set;
    `own`: its events were recorded in this process; `settled`: they are in Redis or given up.

    For a frame in the spool, `packed` is empty; `segment`, `offset`, `length` and `check` (CRC-32)
    locate it.
    """

    shard: int
    shards: int
    packed: bytes
    count: int
    size: int
    own: bool = True
    settled: bool = False
    spooled: bool = False
    segment: "Segment | None" = None
    offset: int = 0
    length: int = 0
    check: int = 0

    def set_location(self, segment: "Segment", offset: int, length: int, check: int) -> None:
        """Record where the packed bytes are on disk, and drop them from memory."""
        self.segment, self.offset, self.length, self.check = segment, offset, length, check
        self.packed = b""


class Segment:
    """`waiting`: frames that are not in Redis yet, in order; `end`: the file's size in bytes."""

    def __init__(self, path: Path, descriptor: int, end: int) -> None:
        self.path = path
        self.end = end
        self.waiting: deque[PendingFrame] = deque()
        self.is_synced = True
        self.unreadable_records = 0
        self.cut_bytes = 0
        self._descriptor = descriptor

    @classmethod
    def create(cls, folder: Path, target: bytes) -> Self:
        crash_point("before_segment_create")
        path, descriptor = publish(folder, SUFFIX, _HEADER.pack(_MAGIC, target, _HEADER.size))
        return cls(path, descriptor, _HEADER.size)

    @classmethod
    def adopt(cls, path: Path, target: bytes) -> Self | None:
        """Lock and read a dead process's segment; None if in use, gone, or of another Redis."""
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
        else:  # without a header its Redis is unknown, so nothing of it may be sent
            segment.unreadable_records = 1
        return segment

    def append(self, frame: PendingFrame) -> None:
        """Write a frame to the end; if that raises `OSError`, the file is as before."""
        meta = _META.pack(frame.count, frame.shard, frame.shards)
        check = zlib.crc32(frame.packed, zlib.crc32(meta))
        record = _RECORD.pack(_RECORD_MAGIC, len(frame.packed), check) + meta + frame.packed
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
        frame.set_location(self, self.end, len(frame.packed), check)
        self.waiting.append(frame)
        self.end += len(record)

    def read(self, frame: PendingFrame) -> bytes:
        """Return a frame's packed bytes; raise `OSError` if they have changed on disk."""
        meta = _META.pack(frame.count, frame.shard, frame.shards)
        packed = os.pread(self._descriptor, frame.length, frame.offset + _OVERHEAD)
        if zlib.crc32(packed, zlib.crc32(meta)) != frame.check:
            raise OSError(f"{self.path}: the record at {frame.offset} has changed on disk")
        return packed

    def record_progress(self) -> None:
        """Store up to where frames are sent, so that a later process continues there."""
        sent = None
        while self.waiting and self.waiting[0].settled:
            frame = self.waiting.popleft()
            sent = frame.offset + _OVERHEAD + frame.length
        if sent is not None and self.waiting:
            crash_point("before_segment_progress")
            _write(self._descriptor, struct.pack("<Q", sent), _SENT_AT)
            crash_point("after_segment_progress")

    def sync(self) -> None:
        """Make what was written survive a loss of power."""
        if not self.is_synced:
            crash_point("before_spool_sync")
            os.fsync(self._descriptor)
            self.is_synced = True
            crash_point("after_spool_sync")

    def delete(self) -> None:
        """Delete the file once its readable frames are sent; set a damaged one aside instead."""
        crash_point("before_segment_delete")
        if self.unreadable_records:
            self.path.rename(self.path.with_name(self.path.name + SET_ASIDE))
        else:
            self.path.unlink(missing_ok=True)
        crash_point("after_segment_delete")
        self.close()

    def close(self) -> None:
        """Close the file, which releases its lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _read_records(self, content: bytes) -> None:
        """Find the frames; cut a torn tail, and skip damaged records before it."""
        at = sent_to = _HEADER.unpack_from(content)[2]
        if sent_to != len(content) and _read_record(content, sent_to) is None:
            at = _HEADER.size  # no record begins at that offset: start from the beginning
        while at < len(content):
            frame = _read_record(content, at)
            if frame is None:
                following = _find_record(content, at)
                if following is None and _is_torn_tail(content, at):
                    crash_point("before_tail_cut")
                    os.ftruncate(self._descriptor, at)
                    self.end, self.cut_bytes = at, len(content) - at
                    return
                self.unreadable_records += 1
                at = len(content) if following is None else following
                continue
            frame.set_location(self, at, frame.length, frame.check)
            self.waiting.append(frame)
            at += _OVERHEAD + frame.length


def publish(folder: Path, suffix: str, content: bytes) -> tuple[Path, int]:
    """Create a file that other processes see only once it is locked and has its content."""
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
    """Make the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_abandoned(path: Path) -> int | None:
    """Open and lock a file of a dead process; return None if its owner lives or it is gone."""
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
    """`target` is the digest of its Redis, None with a damaged header; `events` that are not sent;
    `size` in bytes; `in_use`: by a living process; `is_whole`: the records fill the file."""

    target: bytes | None
    events: int
    size: int
    in_use: bool
    is_whole: bool


def inspect_segment(path: Path) -> SegmentStats:
    """Count what waits in a segment of any process; raise `OSError` if it is gone.

    Frames are not read, so damage inside of one is found only when it is sent.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        in_use = False
        try:  # a process that would adopt the file in this moment tries again later
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            in_use = True
        size = os.fstat(descriptor).st_size
        header = os.pread(descriptor, _HEADER.size, 0)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            return SegmentStats(None, 0, size, in_use, is_whole=False)
        _, target, sent_to = _HEADER.unpack(header)
        at, events = sent_to, 0
        while at + _OVERHEAD <= size:
            record = os.pread(descriptor, _OVERHEAD, at)
            magic, length, _ = _RECORD.unpack_from(record)
            if magic != _RECORD_MAGIC or at + _OVERHEAD + length > size:
                break
            events += _META.unpack_from(record, _RECORD.size)[0]
            at += _OVERHEAD + length
        return SegmentStats(target, events, size, in_use, is_whole=at == size)
    finally:
        os.close(descriptor)


def _read_record(content: bytes, at: int) -> PendingFrame | None:
    """Return the frame recorded at an offset; None if there is no intact record."""
    if len(content) - at < _OVERHEAD:
        return None
    magic, length, check = _RECORD.unpack_from(content, at)
    begin = at + _RECORD.size
    end = begin + _META.size + length
    if magic != _RECORD_MAGIC or end > len(content) or zlib.crc32(content[begin:end]) != check:
        return None
    count, shard, shards = _META.unpack_from(content, begin)
    return PendingFrame(shard, shards, b"", count, 0, own=False, length=length, check=check)


def _find_record(content: bytes, at: int) -> int | None:
    """Return the offset of the next intact record."""
    following = content.find(_RECORD_MAGIC, at + 1)
    while following >= 0:
        if _read_record(content, following) is not None:
            return following
        following = content.find(_RECORD_MAGIC, following + 1)
    return None


def _is_torn_tail(content: bytes, at: int) -> bool:
    """Return whether the rest of the file is a record that was not written to its end."""
    rest = content[at:]
    if len(rest) < _OVERHEAD or not rest.strip(b"\0"):
        return True
    magic, length, _ = _RECORD.unpack_from(rest)
    return bool(magic == _RECORD_MAGIC and len(rest) < _OVERHEAD + length)


def _write(descriptor: int, content: bytes, at: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, at)
        content, at = content[written:], at + written
