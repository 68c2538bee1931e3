"""Numbers of events that were dropped, on disk until Redis knows them.

Invariant: a counter belongs to the process that holds its lock (`flock`). When that process is
dead, any other process that records to the same Redis reports the number, then deletes the file.
Dying between the two makes the number count twice; it is never lost. A counter is a file of 32
bytes beside the segments of the spool: `RFDROPS1`, a digest of the Redis (16), and the number (8,
little-endian), which is overwritten in place and so needs no space on a full disk.
Used under the dispatcher's lock only.
"""

import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from .segment import open_abandoned, publish, sync_folder

SUFFIX: Final = ".dropped"

_MAGIC: Final = b"RFDROPS1"
_CONTENT: Final = struct.Struct("<8s16sQ")
_NUMBER_AT: Final = 24

_log = logging.getLogger("runfold")


class DropCounter:
    """One process's own counter; nothing is touched before the first event is dropped."""

    def __init__(self, folder: Path, target: bytes) -> None:
        self._folder = folder
        self._target = target
        self._path: Path | None = None
        self._descriptor = -1
        self._number = 0
        self._left_behind = 0
        """What earlier files of this counter say, which other processes may report by now."""
        self._is_synced = True
        self._warned = False

    @property
    def is_on_disk(self) -> bool:
        """Whether there is a number that may have to be replaced."""
        return self._path is not None

    def note(self, number: int) -> None:
        """Replace the number on disk; what cannot be written is tried again by the next call."""
        number = max(0, number - self._left_behind)
        if number == self._number:
            return
        try:
            if not number:
                self._delete()
            elif self._path is None:
                self._create(number)
            else:
                os.pwrite(self._descriptor, struct.pack("<Q", number), _NUMBER_AT)
            self._number, self._is_synced = number, False
        except OSError as error:
            if not self._warned:
                self._warned = True
                _log.warning("%d dropped events cannot be noted on disk: %s", number, error)

    def sync(self) -> None:
        """Have the number outlive a loss of power; a disk that refuses is no reason to fail."""
        if self._descriptor >= 0 and not self._is_synced:
            try:
                os.fsync(self._descriptor)
                sync_folder(self._folder)
                self._is_synced = True
            except OSError as error:
                _log.warning("the number of dropped events cannot be synced: %s", error)

    def close(self) -> None:
        """Leave the number to other processes."""
        self._left_behind += self._number
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file without touching it: in a forked child it is the parent's."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._path, self._descriptor, self._number = None, -1, 0

    def _create(self, number: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = _CONTENT.pack(_MAGIC, self._target, number)
        self._path, self._descriptor = publish(self._folder, SUFFIX, content)

    def _delete(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self.abandon()


def report_left(folder: Path, target: bytes, report: Callable[[int], bool]) -> int:
    """Report what dead processes dropped for this Redis; returns how many events that were.

    `report` says whether Redis knows the number now; otherwise the counter stays.
    """
    reported = 0
    for path in _list(folder):
        descriptor = open_abandoned(path)
        if descriptor is None:
            continue
        try:
            content = os.pread(descriptor, _CONTENT.size, 0)
            number = _number_for(target, content)
            if number is None:
                continue
            if number and not report(number):
                return reported
            path.unlink(missing_ok=True)
            reported += number
        except OSError as error:
            _log.warning("%s: a number of dropped events cannot be reported: %s", path, error)
        finally:
            os.close(descriptor)
    return reported


class Counted(NamedTuple):
    """What one counter says."""

    target: bytes
    number: int


def look_at_counters(folder: Path) -> list[Counted]:
    """Read all counters of a folder, and change nothing."""
    found = []
    for path in _list(folder):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # reported just now
            continue
        try:
            content = os.pread(descriptor, _CONTENT.size, 0)
            if len(content) == _CONTENT.size and content.startswith(_MAGIC):
                _, target, number = _CONTENT.unpack(content)
                found.append(Counted(target, number))
        finally:
            os.close(descriptor)
    return found


def _list(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [folder / name for name in names if name.endswith(SUFFIX) and not name.startswith(".")]


def _number_for(target: bytes, content: bytes) -> int | None:
    """The number, if it is for this Redis."""
    if len(content) < _CONTENT.size or not content.startswith(_MAGIC):
        return None
    _, of, number = _CONTENT.unpack(content)
    return int(number) if of == target else None
