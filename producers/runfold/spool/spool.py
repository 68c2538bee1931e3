"""A process's view of the spool folder: its own segments, and those that it has adopted.

Used under the dispatcher's lock only. The package's docstring has the invariants.
"""

import logging
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from redis.connection import parse_url

from runfold.throttled_log import ThrottledLog

from .segment import SUFFIX, UNPUBLISHED, PendingFrame, Segment, open_abandoned, sync_folder

SEGMENT_BYTES: Final = 16 * 1024 * 1024

_log = logging.getLogger("runfold")


class Spool:
    """One for each process; no file is created before the first frame."""

    def __init__(self, folder: Path, max_bytes: int, target: bytes) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes(max_bytes)
        self._target = target
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._failure_log = ThrottledLog()

    def append(self, frame: PendingFrame) -> bool:
        """Write a frame to disk; return False if that failed and it stays in memory."""
        try:
            self._segment_for(len(frame.packed)).append(frame)
        except OSError as error:
            self._failure_log.warning("events wait in memory, as the spool failed: %s", error)
            return False
        return True

    def read(self, frame: PendingFrame) -> bytes | None:
        """Return a frame's packed bytes; log and return None if they cannot be read any more."""
        assert frame.segment is not None
        try:
            return frame.segment.read(frame)
        except OSError as error:
            frame.segment.unreadable_records += 1
            _log.error("%d events of the spool are lost: %s", frame.count, error)
            return None

    def record_progress(self) -> None:
        """Store how far each segment is sent, and delete those without waiting frames."""
        for segment in list(self._segments):
            try:
                segment.record_progress()
                if not segment.waiting:
                    self._delete(segment)
            except OSError as error:
                _log.warning("sent events may be sent again, as the spool failed: %s", error)

    def sync(self) -> bool:
        """Return whether everything that was written survives a loss of power."""
        try:
            for segment in self._segments:
                segment.sync()
        except OSError as error:
            _log.warning("the spool cannot be synced: %s", error)
            return False
        return True

    def adopt(self) -> list[PendingFrame]:
        """Take over the oldest segment of a dead process; return its frames, if any."""
        for path in self._list():
            if any(segment.path == path for segment in self._segments):
                continue
            segment = Segment.adopt(path, self._target)
            if segment is None:
                continue
            self._segments.append(segment)
            if segment.cut_bytes:
                _log.warning("%s: a torn end of %d bytes was cut", path, segment.cut_bytes)
            if segment.waiting:
                return list(segment.waiting)
            self._delete(segment)
        return []

    def close(self) -> None:
        """Sync and close the segments, so that other processes can adopt them."""
        self.sync()
        self.abandon()

    def abandon(self) -> None:
        """Close the segments without changing them: in a forked child they are the parent's."""
        for segment in self._segments:
            segment.close()
        self._segments, self._current = [], None

    def _delete(self, segment: Segment) -> None:
        if segment.unreadable_records:
            _log.error(
                "%s: %d records cannot be read; it is set aside",
                segment.path,
                segment.unreadable_records,
            )
        self._segments.remove(segment)
        if segment is self._current:
            self._current = None
        segment.delete()

    def _segment_for(self, length: int) -> Segment:
        current = self._current
        if current is not None:
            if current.end + length <= self._segment_bytes:
                return current
            current.sync()
            self._current = None
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.scandir(self.folder) as entries:
            taken = sum(_size(entry) for entry in entries if is_segment(entry.name))
        room = max(self._segment_bytes, length)
        if taken + room > self._max_bytes:
            raise OSError(
                f"{self.folder} holds {taken} bytes, and RUNFOLD_SPOOL_BYTES is {self._max_bytes}"
            )
        segment = Segment.create(self.folder, self._target)
        try:
            sync_folder(self.folder)
        except OSError:  # a loss of power could remove the new name, and the events with it
            segment.delete()
            raise
        self._segments.append(segment)
        self._current = segment
        return segment

    def _list(self) -> list[Path]:
        """List segments, oldest first; remove unpublished files of dead processes."""
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return []
        for path in (self.folder / name for name in names if name.startswith(UNPUBLISHED)):
            descriptor = open_abandoned(path)
            if descriptor is not None:  # no living process is about to publish it
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                os.close(descriptor)
        return [self.folder / name for name in names if is_segment(name)]


def redis_digest(redis_url: str) -> bytes:
    """Return a digest of host, port and database, or of path and database; not of the password."""
    parts = parse_url(redis_url)  # type: ignore[no-untyped-call]  # redis-py has no types here
    known = [str(parts.get(key, "")) for key in ("path", "host", "port", "db")]
    return blake2b("\n".join(known).encode(), digest_size=16, person=b"runfold.spool").digest()


def segment_bytes(max_bytes: int) -> int:
    """Return the size in bytes at which a segment is full."""
    return min(SEGMENT_BYTES, max_bytes // 4)


def is_segment(name: str) -> bool:
    """Return whether a file is a published segment."""
    return name.endswith(SUFFIX) and not name.startswith(UNPUBLISHED)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # another process has just sent and deleted it
        return 0
