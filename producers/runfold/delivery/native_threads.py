"""The interpreter's own threads, locks and queues, regardless of monkey-patching.

gevent replaces those of `threading` and `queue`, before or after this import, by ones that switch
between greenlets. The flusher remains a native thread: a greenlet would not run while the program
computes. Its sockets may be gevent's, which have an event loop for each native thread.
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

__all__ = ["Empty", "OneShotEvent", "OwnedLock", "RLock", "SimpleQueue", "Thread", "is_cooperative"]


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

_POLL_S: Final = 0.001


def is_cooperative() -> bool:
    """Return whether a wait must let other greenlets run: `time.sleep` has been replaced."""
    return time.sleep is not _sleep


class OwnedLock:
    """A lock that knows whether the calling thread holds it."""

    def __init__(self) -> None:
        self._lock: LockType = Lock()
        self._holder = 0

    def acquire(self, timeout_s: float = -1.0) -> bool:
        """Take the lock; return False if it is not free in time (negative: no time limit)."""
        acquired = self._lock.acquire(timeout=timeout_s)
        if acquired:
            self._holder = _get_ident()
        return acquired

    def release(self) -> None:
        """Release the lock."""
        self._holder = 0
        self._lock.release()

    def is_held_by_caller(self) -> bool:
        """Return whether the calling thread holds the lock, in an outer frame."""
        return bool(self._holder == _get_ident())

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class OneShotEvent:
    """An event that any thread sets once and one thread waits for."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()
        self._is_set = False

    def set(self) -> None:
        """Set it, and end the wait."""
        self._is_set = True
        self._queue.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout_s: float, *, cooperative: bool) -> bool:
        """Wait; return whether it is set. `cooperative` lets other greenlets run meanwhile."""
        if cooperative and is_cooperative():
            deadline = time.monotonic() + timeout_s
            while not self._is_set and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        elif not self._is_set:
            with suppress(Empty):
                self._queue.get(timeout=max(0.0, timeout_s))
        return self._is_set


class Thread:
    """A daemon thread. `start` does not wait until it runs, as that of `threading` does: CPython
    3.11 runs no new thread at finalization."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self._target = target
        self._name = name
        self._ident: int | None = None
        self._ended = OneShotEvent()

    def start(self) -> None:
        """Start; raise `RuntimeError` at finalization, or if there are too many threads."""
        if sys.is_finalizing():
            raise RuntimeError("the interpreter is shutting down: no thread can start")
        _start_new_thread(self._run, ())

    def is_current(self) -> bool:
        """Return whether the caller runs in this thread."""
        return bool(self._ident == _get_ident()) and not self._ended.is_set()

    def is_alive(self) -> bool:
        """Return whether it will run again; at finalization only the main thread does."""
        return not self._ended.is_set() and not sys.is_finalizing()

    def join(self, timeout_s: float, *, cooperative: bool = True) -> None:
        """Wait at most `timeout_s` seconds for its end."""
        if self.is_alive():
            self._ended.wait(timeout_s, cooperative=cooperative)

    def _run(self) -> None:
        self._ident = _get_ident()
        threading.current_thread().name = self._name  # for logs
        try:
            self._target()
        finally:
            self._ended.set()
