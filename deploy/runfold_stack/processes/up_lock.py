"""Which `runfold up` has a data directory, and where its API is.

Invariant: while it lives it holds an exclusive flock on `up.lock` in the data directory, so there
is one at most, and what the file says can be believed exactly while the lock is held.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from runfold_stack.errors import StackError
from runfold_stack.exit_codes import CommandFailed
from runfold_stack.servers.data_dir import check_home
from runfold_stack.servers.owned_folder import open_file, open_folder

_NAME: Final = "up.lock"
_READERS_S: Final = 0.5
_POLL_S: Final = 0.02


class UpState(Struct, frozen=True):
    """`api_url` is None until the API can be reached."""

    pid: int
    api_url: str | None = None
    metrics_urls: tuple[str, ...] = ()
    """Of the workers."""


class UpLock:
    """The lock, held."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def tell(self, state: UpState) -> None:
        """Write down what others should know."""
        text = msgspec.json.encode(state)
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))


@contextmanager
def claim_up(home: Path) -> Iterator[UpLock]:
    """Hold the data directory; `CommandFailed` if another `runfold up` does."""
    check_home(home, to_write=True)
    home.mkdir(parents=True, exist_ok=True)
    with open_folder(home) as folder:
        fd = open_file(home / _NAME, os.O_RDWR | os.O_CREAT, folder)
    try:
        _lock(fd, home)
        lock = UpLock(fd)
        lock.tell(UpState(os.getpid()))
        yield lock
    finally:
        os.close(fd)


def find_up(home: Path) -> UpState | None:
    """The `runfold up` that has this data directory, if one has."""
    try:
        with open_folder(home) as folder:
            fd = open_file(home / _NAME, os.O_RDONLY, folder)
    except (OSError, StackError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            return msgspec.json.decode(os.pread(fd, 4096, 0), type=UpState)
        except msgspec.MsgspecError:  # it is just writing
            return UpState(0)
    else:
        return None
    finally:
        os.close(fd)


def _lock(fd: int, home: Path) -> None:
    deadline = time.monotonic() + _READERS_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Not at once: whoever asks who is up holds the lock for an instant.
            if time.monotonic() > deadline:
                raise CommandFailed(_already_up(home)) from None
            time.sleep(_POLL_S)
        else:
            return


def _already_up(home: Path) -> str:
    state = find_up(home) or UpState(0)
    where = f", API at {state.api_url}" if state.api_url else ", still starting"
    return (
        f"`runfold up` runs already on {home} (pid {state.pid}{where}): use that one, "
        "stop it with `runfold down`, or set RUNFOLD_HOME to another directory"
    )
