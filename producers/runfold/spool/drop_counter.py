"""Numbers of dropped events, on disk until they are reported to Redis.

A file has 32 bytes: `RFDROPS1`, the digest of the Redis (16) and the number (8, little-endian),
which is overwritten in place and so needs no space on a full disk. Used under the dispatcher's lock
only; the package's docstring has the invariants.
"""

import logging
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from .segment import open_abandoned, publish, sync_folder

SUFFIX: Final = ".dropped"

_MAGIC: Final = b"RFDROPS1"
_CONTENT: Final = struct.Struct("<8s16sQ")
_NUMBER_AT: Final = 24

_log = logging.getLogger("runfold")


class DropCounter:
    """The counter of this process; no file is created before the first drop."""

    def __init__(self, folder: Path, target: bytes) -> None:
        self._folder = folder
        self._target = target
        self._path: Path | None = None
        self._descriptor = -1
        self._number = 0
        self._handed_over = 0
        """The sum of this process's earlier files, which other processes may have reported."""
        self._is_synced = True
        self._warned = False

    @property
    def is_on_disk(self) -> bool:
        return self._path is not None

    def store(self, number: int) -> None:
        """Replace the number on disk; if that fails, the next call tries again."""
        number = max(0, number - self._handed_over)
        if number == self._number:
            return
        try:
            if self._path is None:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                content = _CONTENT.pack(_MAGIC, self._target, number)
                self._path, self._descriptor = publish(self._folder, SUFFIX, content)
            elif not number:
                self._path.unlink(missing_ok=True)
                self.abandon()
            else:
                os.pwrite(self._descriptor, struct.pack("<Q", number), _NUMBER_AT)
            self._number, self._is_synced = number, False
        except OSError as error:
            if not self._warned:
                self._warned = True
                _log.warning("the count of %d dropped events cannot be stored: %s", number, error)

    def sync(self) -> None:
        """Make the number survive a loss of power; log a failure."""
        if self._descriptor >= 0 and not self._is_synced:
            try:
                os.fsync(self._descriptor)
                sync_folder(self._folder)
                self._is_synced = True
            except OSError as error:
                _log.warning("the count of dropped events cannot be synced: %s", error)

    def close(self) -> None:
        """Close the file, so that another process reports its number."""
        self._handed_over += self._number
        self.abandon()

    def abandon(self) -> None:
        """Close the file without changing it: in a forked child it is the parent's."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._path, self._descriptor, self._number = None, -1, 0


def report_abandoned(folder: Path, target: bytes, report: Callable[[int], bool]) -> int:
    """Report what dead processes dropped for this Redis; return the number of events.

    `report` returns whether Redis has accepted the number; otherwise the counter stays.
    """
    reported = 0
    for path in _list_counters(folder):
        descriptor = open_abandoned(path)
        if descriptor is None:
            continue
        try:
            counter = _parse_counter(os.pread(descriptor, _CONTENT.size, 0))
            if counter is None or counter[0] != target:
                continue
            number = counter[1]
            if number and not report(number):
                return reported
            path.unlink(missing_ok=True)
            reported += number
        except OSError as error:
            _log.warning("%s: the count of dropped events cannot be reported: %s", path, error)
        finally:
            os.close(descriptor)
    return reported


def read_counters(folder: Path) -> list[tuple[bytes, int]]:
    """Return (digest of the Redis, number) of all counters of a folder, without locking them."""
    found = []
    for path in _list_counters(folder):
        with suppress(OSError):  # another process has just reported and deleted it
            found.append(_parse_counter(path.read_bytes()))
    return [counter for counter in found if counter is not None]


def _list_counters(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [folder / name for name in names if name.endswith(SUFFIX) and not name.startswith(".")]


def _parse_counter(content: bytes) -> tuple[bytes, int] | None:
    if len(content) < _CONTENT.size or not content.startswith(_MAGIC):
        return None
    _, target, number = _CONTENT.unpack_from(content)
    return target, number
