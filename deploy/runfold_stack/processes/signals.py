"""Requests to stop: Ctrl-C, SIGTERM or the end of the terminal.

A signal handler can interrupt any code, so it only counts, and a pipe wakes the main thread.
"""

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Self, TypeVar

from runfold_stack.errors import INTERRUPTED, CommandFailed
from runfold_storage.jobs import JobInterrupted

T = TypeVar("T")

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequests:
    """Count stop requests inside a `with` block; for the main thread only."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        os.set_blocking(self._read_fd, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in STOPPING:
            # Signals that nohup ignores stay ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._count)
        # Without a handler, SIGCHLD would not wake `wait` through the pipe.
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for a request or the end of a child process, at most `timeout_s` seconds."""
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        if poll.poll(None if timeout_s is None else timeout_s * 1000):
            os.read(self._read_fd, 4096)

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise `KeyboardInterrupt` as Ctrl-C does, so that cleanup code runs."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def start_thread(work: Callable[[], T]) -> "Future[T]":
    """Run `work` in a daemon thread, so that an abandoned one does not hold up the exit."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def run_stoppable(
    work: Callable[[threading.Event], T],
    interrupted: Callable[[], str] = lambda: "interrupted; the same command resumes from here",
) -> T:
    """Run `work` in a thread; the first stop request sets its event, the second abandons it.

    Raise what `work` raises; `CommandFailed` with the message of `interrupted` if it has stopped
    early, and `KeyboardInterrupt` if it was abandoned.
    """
    stop = threading.Event()
    with StopRequests() as requests:
        future = start_thread(lambda: work(stop))
        while not future.done() and requests.count < 2:
            if requests.count:
                stop.set()
            requests.wait(0.05)
    if not future.done():
        raise KeyboardInterrupt
    try:
        return future.result()
    except JobInterrupted as error:
        raise CommandFailed(interrupted(), INTERRUPTED) from error
