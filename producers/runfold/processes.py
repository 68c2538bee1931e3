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
from typing import Protocol
from weakref import WeakSet

generation = 0
"""Grows by one in every forked child: what remembers another number belongs to the parent."""


class Resident(Protocol):
    """Something that has to know."""

    def after_fork(self) -> None:
        """Called in the child, whose only thread is the one that forked."""

    def at_exit(self) -> None:
        """Called once or more while the process ends; daemon threads still run."""


_residents: WeakSet[Resident] = WeakSet()


def tell(resident: Resident) -> None:
    """From now on this one is told of forks and of the end."""
    _residents.add(resident)


def watch_multiprocessing() -> None:
    """In a child of `multiprocessing`, ask to be told of its end: it leaves without `atexit`.

    Its registry of finalizers is emptied after the fork, so this is asked for as late as possible.
    """
    process = sys.modules.get("multiprocessing.process")
    util = sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, _end, exitpriority=-100)


def _end() -> None:
    for resident in list(_residents):
        resident.at_exit()


def _forked() -> None:
    global generation  # noqa: PLW0603, the number of this very process
    generation += 1
    for resident in list(_residents):
        resident.after_fork()


os.register_at_fork(after_in_child=_forked)
atexit.register(_end)  # as early as this: handlers run last in, first out, and may still emit
