"""Where events wait on disk while Redis takes none: a folder of segments.

Invariant: a parcel is in at most one segment, and a segment is deleted only after each of its
parcels that can be read is in Redis. Each process writes segments of its own and holds their
locks; when it is gone, any other process that records to the same Redis sends what is left. Dying
at any point can repeat events, never lose them. What was written survives the process; after
`sync` it survives a loss of power. Used under the dispatcher's lock only.
"""

import fcntl
import logging
import os
import time
from hashlib import blake2b
from pathlib import Path
from typing import Final

from redis.connection import parse_url

from .pending_frame import PendingFrame
from .segment import SUFFIX, UNPUBLISHED, Segment, sync_folder

SEGMENT_BYTES: Final = 16 * 1024 * 1024
_REPORT_EVERY_S: Final = 60.0

_log = logging.getLogger("runfold")


class Spool:
    """Made once a process; nothing is touched before the first parcel comes."""

    def __init__(self, folder: Path, max_bytes: int, target: bytes) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes(max_bytes)
        self._target = target
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._reported_at: float | None = None

    def keep(self, parcel: PendingFrame) -> bool:
        """Write a parcel to disk; it stays in memory when that is not possible."""
        try:
            self._segment_for(len(parcel.frame)).append(parcel)
        except OSError as error:
            now = time.monotonic()
            if self._reported_at is None or now - self._reported_at >= _REPORT_EVERY_S:
                self._reported_at = now
                _log.warning("the spool takes no events, they wait in memory: %s", error)
            return False
        return True

    def read(self, parcel: PendingFrame) -> bytes | None:
        """The frame of a parcel; `None`, with a message, when it cannot be read any more."""
        assert parcel.segment is not None
        try:
            return parcel.segment.read(parcel)
        except OSError as error:
            parcel.segment.unreadable += 1
            _log.error("%d events of the spool are lost: %s", parcel.count, error)
            return None

    def note_sent(self) -> None:
        """Some parcels are settled: remember how far each segment is sent, delete what is empty."""
        for segment in list(self._segments):
            try:
                segment.note_sent()
                if not segment.waiting:
                    self._delete(segment)
            except OSError as error:
                _log.warning("the spool cannot note what is sent and will repeat it: %s", error)

    def sync(self) -> bool:
        """Whether all that was written here survives a loss of power."""
        try:
            for segment in self._segments:
                segment.sync()
        except OSError as error:
            _log.warning("the spool cannot be synced: %s", error)
            return False
        return True

    def adopt(self) -> list[PendingFrame]:
        """The parcels of the oldest segment whose owner is dead, if there is one."""
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
        """Let go of the segments: what is in them can be sent by others now."""
        self.sync()
        self.abandon()

    def abandon(self) -> None:
        """The same without touching a file: in a forked child, where they are the parent's."""
        for segment in self._segments:
            segment.close()
        self._segments, self._current = [], None

    def _delete(self, segment: Segment) -> None:
        if segment.unreadable:
            _log.error(
                "%s: %d records cannot be read; it is set aside", segment.path, segment.unreadable
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
        taken = sum(size for _, size in self._sizes())
        room = max(self._segment_bytes, length)
        if taken + room > self._max_bytes:
            raise OSError(
                f"{self.folder} holds {taken} bytes, and RUNFOLD_SPOOL_BYTES is {self._max_bytes}"
            )
        segment = Segment.create(self.folder, self._target)
        try:
            sync_folder(self.folder)
        except OSError:  # its name could be lost, and with it what is written there
            segment.delete()
            raise
        self._segments.append(segment)
        self._current = segment
        return segment

    def _list(self) -> list[Path]:
        """Oldest first; what a crash left of a segment that was not begun yet is removed."""
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return []
        for name in names:
            if name.startswith(UNPUBLISHED):
                _remove_unlocked(self.folder / name)
        return [self.folder / name for name in names if is_segment(name)]

    def _sizes(self) -> list[tuple[str, int]]:
        with os.scandir(self.folder) as entries:
            return [(entry.name, _size(entry)) for entry in entries if is_segment(entry.name)]


def target_of(redis_url: str) -> bytes:
    """Which Redis that is: host, port and database, or path; not with which password."""
    parts = parse_url(redis_url)  # type: ignore[no-untyped-call]  # redis-py has no types here
    known = [str(parts.get(key, "")) for key in ("path", "host", "port", "db")]
    return blake2b("\n".join(known).encode(), digest_size=16, person=b"runfold.spool").digest()


def segment_bytes(max_bytes: int) -> int:
    """How large a segment becomes, before another one is begun."""
    return min(SEGMENT_BYTES, max_bytes // 4)


def is_segment(name: str) -> bool:
    """Whether a file of the folder is a segment that waits to be sent."""
    return name.endswith(SUFFIX) and not name.startswith(UNPUBLISHED)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # another process has just sent it
        return 0


def _remove_unlocked(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:  # someone is about to begin it
        return
    finally:
        os.close(descriptor)
