"""What happens to a process: it forks, it ends.

After a fork the child must neither use the parent's connection nor its numbering, and must not
send the parent's events again. At the end of a process what is buffered must go out. Emitters
ask here for both; nothing holds them longer than their owner does.
"""

import atexit

# What redis-py, sockets and `names` would otherwise import in the flusher's thread, at first use:
# a fork in the middle of an import leaves the child with half a module for ever.
import email.parser  # noqa: F401
import encodings.idna
import encodings.utf_16  # noqa: F401
import os
import secrets  # noqa: F401
import sys
import threading
from typing import Final, Protocol
from weakref import WeakSet

generation = 0
"""Grows by one in every forked child: what remembers another number belongs to the parent."""
ending = False
"""Whether `atexit` has called: what begins now is not told of the end."""

_MULTIPROCESSING: Final = ("multiprocessing", "billiard")
_FLAGS: Final = 6
"""Where in /proc/self/stat, counted from behind the command's name."""
_FORKED_WITHOUT_EXEC: Final = 0x40  # PF_FORKNOEXEC of the kernel


class ProcessHooks(Protocol):
    """Something that has to know."""

    def after_fork(self) -> None:
        """Called in the child, whose only thread is the one that forked."""

    def at_exit(self) -> None:
        """Called once or more while the process ends; daemon threads still run."""


_residents: WeakSet[ProcessHooks] = WeakSet()


def register(resident: ProcessHooks) -> None:
    """From now on this one is told of forks and of the end."""
    _residents.add(resident)


def ends_abruptly() -> bool:
    """Return whether this process may end by `os._exit` or a signal at any time, without `atexit`.

    So do the children that prefork workers and process pools make: those of a fork, also one that
    came before this import (RQ imports a job's module in its work horse), and those of
    `multiprocessing` and of `billiard`, Celery's fork of it, however they were started.
    """
    return generation > 0 or _is_forked() or any(map(_is_child, _MULTIPROCESSING))


def is_orphaned() -> bool:
    """Return whether only daemon threads are left of a child that was forked by another thread
    than the main one: no finalization comes, and each of them would keep the process for ever."""
    return generation > 0 and not threading.main_thread().is_alive()


def watch_multiprocessing() -> None:
    """In a child of `multiprocessing`, ask to be told of its end: it leaves without `atexit`.

    Its registry of finalizers is emptied after the fork, so this is asked for as late as possible.
    """
    for package in _MULTIPROCESSING:
        util = sys.modules.get(f"{package}.util")
        if util is not None and _is_child(package):
            util.Finalize(None, _end, exitpriority=-100)


def _is_child(package: str) -> bool:
    process = sys.modules.get(f"{package}.process")
    if process is None:
        return False
    current = process.current_process()
    # Set while a spawned child imports its main module, before it knows what process it is.
    return getattr(current, "_parent_pid", None) is not None or hasattr(current, "_inheriting")


def _is_forked() -> bool:
    """Return whether the kernel (Linux) says that this process has not called `exec`."""
    try:
        with open("/proc/self/stat", "rb") as file:
            flags = int(file.read().rpartition(b")")[2].split()[_FLAGS])
    except (OSError, ValueError, IndexError):
        return False
    return bool(flags & _FORKED_WITHOUT_EXEC)


def _at_exit() -> None:
    global ending  # noqa: PLW0603, the end of this very process
    ending = True
    _end()


def _end() -> None:
    for resident in list(_residents):
        resident.at_exit()


def _forked() -> None:
    global generation  # noqa: PLW0603, the number of this very process
    generation += 1
    for resident in list(_residents):
        resident.after_fork()


os.register_at_fork(after_in_child=_forked)
atexit.register(_at_exit)  # as early as this: handlers run last in, first out, and may still emit
