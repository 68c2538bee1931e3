"""Being asked to stop: Ctrl-C, SIGTERM or a terminal that goes away.

A handler may run in the middle of anything, so it does nothing but count; whoever waits here is
woken through a pipe and does the stopping.
"""

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequests:
    """Counts them while it is entered; only in the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        os.set_blocking(self._read_fd, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in STOPPING:
            # nohup: whoever said that a hang-up does not matter is right.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _wake)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def wait(self, timeout_s: float | None = None) -> None:
        """Until something happens: a request, the end of a child, or the time is over."""
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        if poll.poll(None if timeout_s is None else timeout_s * 1000):
            os.read(self._read_fd, 4096)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def _wake(_number: int, _frame: FrameType | None) -> None:
    """The pipe has told already; without a handler there would be no wake-up."""


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end what is being done as Ctrl-C does, with everything undone on the way."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_stoppable(work: Callable[[threading.Event], T]) -> T:
    """Work in a thread that is told when somebody asks to stop, and left alone when they insist.

    Raises what the work raises, and `KeyboardInterrupt` when it was left alone.
    """
    stop, done = threading.Event(), threading.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work(stop))
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    with StopRequests() as requests:
        threading.Thread(target=run, daemon=True).start()
        while not done.is_set() and requests.count < 2:
            if requests.count:
                stop.set()
            requests.wait(0.05)
    if failures:
        raise failures[0]
    if not done.is_set():
        raise KeyboardInterrupt
    return results[0]
