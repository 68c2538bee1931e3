"""Threads, locks and queues of the interpreter itself, whatever a monkey-patch puts in their place.

gevent replaces those of `threading` and `queue` by ones that switch between greenlets, before or
after this import. The flusher is a native thread nevertheless: a greenlet would get no turn while
the program computes, and one that waited natively would hold up all the others. Sockets that it
opens may be gevent's: they have an event loop for each native thread.
"""

import sys
import threading
import time
from _queue import Empty, SimpleQueue
from _thread import LockType
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

__all__ = ["Empty", "OwnedLock", "RLock", "Signal", "SimpleQueue", "Thread", "is_cooperative"]


def _original(module: str, name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(import_module(module), name)


Lock: Final = _original("_thread", "allocate_lock")
RLock: Final = _original("_thread", "RLock")
_start_new_thread: Final = _original("_thread", "start_new_thread")
_get_ident: Final = _original("_thread", "get_ident")
_sleep: Final = _original("time", "sleep")

_LOOK_AGAIN_S: Final = 0.001


def is_cooperative() -> bool:
    """Whether waiting is for other greenlets to run: `time.sleep` is not the interpreter's."""
    return time.sleep is not _sleep


class OwnedLock:
    """A lock that knows whether the calling thread holds it."""

    def __init__(self) -> None:
        self._lock: LockType = Lock()
        self._holder = 0

    def acquire(self, timeout_s: float = -1.0) -> bool:
        """Take the lock; False if it is not free in time (negative: wait without a bound)."""
        acquired = self._lock.acquire(timeout=timeout_s)
        if acquired:
            self._holder = _get_ident()
        return acquired

    def release(self) -> None:
        """Let go of the lock."""
        self._holder = 0
        self._lock.release()

    def is_mine(self) -> bool:
        """Whether the calling thread holds the lock, in a frame below this one."""
        return bool(self._holder == _get_ident())

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Signal:
    """Set once, by any thread; waited for by one."""

    def __init__(self) -> None:
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._is_set = False

    def set(self) -> None:
        """End the wait."""
        self._is_set = True
        self._bell.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout_s: float, *, cooperative: bool) -> bool:
        """Return whether it is set, after `timeout_s` at the latest.

        `cooperative`: let other greenlets run meanwhile, where there are any.
        """
        if cooperative and is_cooperative():
            deadline = time.monotonic() + timeout_s
            while not self._is_set and time.monotonic() < deadline:
                time.sleep(_LOOK_AGAIN_S)
        elif not self._is_set:
            with suppress(Empty):
                self._bell.get(timeout=max(0.0, timeout_s))
        return self._is_set


class Thread:
    """A daemon thread. `start` does not wait until it runs, as that of `threading` does.

    At finalization CPython 3.11 lets no new thread run, and such a wait would never end.
    """

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self._target = target
        self._name = name
        self._ident: int | None = None
        self._ended = Signal()

    def start(self) -> None:
        """Raise `RuntimeError` when it is too late for a thread, or there are too many."""
        if sys.is_finalizing():
            raise RuntimeError("the interpreter shuts down: no thread can start")
        _start_new_thread(self._run, ())

    def is_current(self) -> bool:
        """Return whether the caller runs in it."""
        return bool(self._ident == _get_ident()) and not self._ended.is_set()

    def is_alive(self) -> bool:
        """Return whether it will run again: at finalization only one thread does."""
        return not self._ended.is_set() and not sys.is_finalizing()

    def join(self, timeout_s: float, *, cooperative: bool = True) -> None:
        """Wait for its end, for so long."""
        if self.is_alive():
            self._ended.wait(timeout_s, cooperative=cooperative)

    def _run(self) -> None:
        self._ident = _get_ident()
        threading.current_thread().name = self._name  # for logs
        try:
            self._target()
        finally:
            self._ended.set()
