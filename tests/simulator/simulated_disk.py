"""The disk that the spool writes to: real files, but full, failing or without power at times."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from runfold.spool.segment import SUFFIX

from .processes import Process, ProcessContext


class DiskContext(ProcessContext, Protocol):
    """What the disk sees of the world."""

    @property
    def current_process(self) -> Process:
        """The process that calls."""


class SimulatedDisk:
    """In place of the module `os`; what is not written here is as it is there."""

    def __init__(self, world: DiskContext) -> None:
        self._world = world
        self._open: dict[int, Process] = {}
        self._creators: dict[int, Process] = {}
        self._synced: dict[int, int] = {}
        """Up to where a file, by its inode, outlives a loss of power."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: object, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and self._world.faults.occurs("disk_fails"):
            raise OSError(errno.ENOSPC, "no space left on device")
        descriptor = os.open(os.fspath(path), flags, mode)  # type: ignore[call-overload]  # a path
        self._open[descriptor] = self._world.current_process
        if flags & os.O_CREAT:
            inode = os.fstat(descriptor).st_ino  # another file may have had that number
            self._synced[inode], self._creators[inode] = 0, self._world.current_process
        return int(descriptor)

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        os.close(descriptor)

    def pwrite(self, descriptor: int, content: bytes, at: int) -> int:
        """A part of it, and no more than that when the disk is full."""
        faults = self._world.faults
        if faults.occurs("disk_fails"):
            os.pwrite(descriptor, content[: faults.rng.randrange(len(content))], at)
            raise OSError(errno.ENOSPC, "no space left on device")
        if faults.occurs_with(0.1):
            content = content[: faults.rng.randint(1, len(content))]
        return os.pwrite(descriptor, content, at)

    def fsync(self, descriptor: int) -> None:
        """Without asking the real disk, which would take its time."""
        if self._world.faults.occurs("disk_fails"):
            raise OSError(errno.EIO, "input/output error")
        status = os.fstat(descriptor)
        self._synced[status.st_ino] = status.st_size

    def ftruncate(self, descriptor: int, length: int) -> None:
        os.ftruncate(descriptor, length)
        inode = os.fstat(descriptor).st_ino
        self._synced[inode] = min(self._synced.get(inode, 0), length)

    def urandom(self, size: int) -> bytes:
        return self._world.faults.rng.randbytes(size)

    def getpid(self) -> int:
        return 1

    def leave(self, process: Process) -> None:
        """The process is gone, and with it its locks; at times so is the power."""
        faults = self._world.faults
        without_power = faults.occurs("power_fails")
        for descriptor in [each for each, owner in self._open.items() if owner is process]:
            status = os.fstat(descriptor)
            if without_power:
                synced = self._synced.get(status.st_ino, 0)
                if status.st_nlink and synced < status.st_size:
                    os.ftruncate(descriptor, faults.rng.randint(synced, status.st_size))
            self.close(descriptor)

    def count_segments_of(self, process: Process, folder: Path) -> int:
        """How many segments in a folder are a process's own."""
        if not folder.exists():
            return 0
        segments = (each for each in os.scandir(folder) if each.name.endswith(SUFFIX))
        return sum(self._creators.get(each.inode()) is process for each in segments)


def make_crash_point(world: DiskContext) -> Callable[..., None]:
    """In place of `crash_point` where files are written: each is a place to die."""

    def crash_point(_name: str, last: Callable[[], object] | None = None) -> None:
        process = world.current_process
        if process.alive and world.faults.occurs("crash"):
            if last is not None:
                last()
            process.alive = False
        process.crash_if_due()

    return crash_point
