"""A file whose content is valid exactly while a process holds its exclusive lock (flock).

A child inherits the lock with the file's descriptor, and the kernel drops it with the last holder:
no content can be stale, and two starters cannot both win.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runfold_stack.errors import StackError

from .owned_folder import Identity, open_file, open_folder

_POLL_S: Final = 0.01


class LockFile:
    """The lock file `path`, in a folder that another user may be able to change."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        """Return the content; None if no process holds the lock."""
        try:
            with open_folder(self.path.parent) as folder:
                fd = open_file(self.path, os.O_RDONLY, folder)
        except (OSError, StackError):
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(fd, 4096, 0)
        else:
            return None
        finally:
            os.close(fd)

    @contextmanager
    def claim(
        self, refuse: Callable[[float, bytes], None], owner: Identity | None = None
    ) -> Iterator[int]:
        """Hold the lock, and yield the descriptor of the empty file, which a child may inherit.

        While another process holds it, `refuse` takes the seconds waited and the content.
        """
        with open_folder(self.path.parent) as folder:
            fd = open_file(self.path, os.O_RDWR | os.O_CREAT, folder, owner)
        try:
            started = time.monotonic()
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    refuse(time.monotonic() - started, os.pread(fd, 4096, 0))
                    time.sleep(_POLL_S)
            os.truncate(fd, 0)
            yield fd
        finally:
            os.close(fd)
