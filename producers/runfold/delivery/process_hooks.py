"""Calls at a fork and at the end of the process.

After a fork the child must not use the parent's connection or event ids, nor send its events again.
At the end of a process buffered events must be sent. `ends_abruptly` detects processes that end by
`os._exit` or a signal, without `atexit`: RQ's work horses, the children of Celery and of
`multiprocessing.Pool`. There the end of an outermost run waits until its events are safe.
"""

import atexit

# redis-py, sockets and codecs import these at first use, in the flusher's thread: a fork in the
# middle of an import would leave the child with half a module for ever.
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
"""Grows by one in every forked child: an object that stored another number is the parent's."""
exit_began = False
"""Whether exit handlers have run: emitters made from now on get no call at the end."""

_MULTIPROCESSING: Final = ("multiprocessing", "billiard")
_FLAGS: Final = 6
"""Field of /proc/self/stat, counted after the command's name."""
_FORKED_WITHOUT_EXEC: Final = 0x40  # PF_FORKNOEXEC of the kernel


class ProcessHooks(Protocol):
    """What a registered object does at a fork and at the end."""

    def after_fork(self) -> None:
        """Start anew in the child, whose only thread is the one that forked."""

    def at_exit(self) -> None:
        """Prepare for the end. Called at least once; daemon threads still run."""


_registered: WeakSet[ProcessHooks] = WeakSet()


def register(hooks: ProcessHooks) -> None:
    """Call these hooks from now on, while another reference to them exists."""
    _registered.add(hooks)


def ends_abruptly() -> bool:
    """Return whether this process may end without `atexit`: whether it is a worker's child.

    That is a process that was forked, even before this import (RQ imports a job's module in its
    work horse), or that `multiprocessing` or `billiard`, Celery's version, started in any way.
    """
    return generation > 0 or _is_forked() or any(map(_is_child, _MULTIPROCESSING))


def is_orphaned() -> bool:
    """Return whether only daemon threads are left of a child that a secondary thread forked.

    Such a process is never finalized: each of these threads would keep it alive for ever.
    """
    return generation > 0 and not threading.main_thread().is_alive()


def register_multiprocessing_exit() -> None:
    """In a child of `multiprocessing`, register for its own finalizers: it skips `atexit`.

    The child clears these finalizers after the fork, so call this as late as possible.
    """
    for package in _MULTIPROCESSING:
        util = sys.modules.get(f"{package}.util")
        if util is not None and _is_child(package):
            util.Finalize(None, _run_exit_hooks, exitpriority=-100)


def _is_child(package: str) -> bool:
    process = sys.modules.get(f"{package}.process")
    if process is None:
        return False
    current = process.current_process()
    # `_inheriting` is set while a spawned child imports its main module.
    return getattr(current, "_parent_pid", None) is not None or hasattr(current, "_inheriting")


def _is_forked() -> bool:
    """Return whether this process was forked and has not called `exec` (known on Linux only)."""
    try:
        with open("/proc/self/stat", "rb") as file:
            flags = int(file.read().rpartition(b")")[2].split()[_FLAGS])
    except (OSError, ValueError, IndexError):
        return False
    return bool(flags & _FORKED_WITHOUT_EXEC)


def _at_exit() -> None:
    global exit_began  # noqa: PLW0603, a state of this process
    exit_began = True
    _run_exit_hooks()


def _run_exit_hooks() -> None:
    for hooks in list(_registered):
        hooks.at_exit()


def _forked() -> None:
    global generation  # noqa: PLW0603, a state of this process
    generation += 1
    for hooks in list(_registered):
        hooks.after_fork()


os.register_at_fork(after_in_child=_forked)
atexit.register(_at_exit)  # early, as handlers run last in, first out, and others may still emit
