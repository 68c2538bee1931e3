"""Run a command with its streams passed through, byte for byte, as they come.

Each stream has a thread that first passes bytes on and then shows them to a listener, which must
not block and whose failures are none of the command's business. Whoever reads our output and
goes away takes the command's pipe along, so that it sees the same end as without us.
"""

import contextlib
import errno
import os
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from .signal_forwarding import SignalForwarder
from .stdio import ChildStdio, Source, read, take_terminal

QUIET_S: Final = 0.5
"""After the command's end its own output is all there. Processes that it left behind may still
hold the pipe: when nothing has come for this long, or too much, we go."""
_LATE_BYTES: Final = 1024 * 1024
"""More than a pipe holds."""


class Listener(Protocol):
    """Is shown one stream's bytes; `due_in_s` says when it wants a `tick`."""

    def feed(self, data: bytes) -> None: ...

    def due_in_s(self) -> float | None: ...

    def tick(self) -> None: ...

    def finish(self) -> None: ...


class ExitResult(NamedTuple):
    """How it ended: `returncode` is negative after a signal; `signals` came while it ran."""

    returncode: int
    signals: frozenset[int]


def run_command(
    words: Sequence[str],
    started: Callable[[], None],
    listen: Callable[[Source], Listener],
    *,
    shows_output: bool = True,
) -> ExitResult:
    """Run it to its end; OSError if it cannot be started.

    `started` is called once it runs, `listen` once for each of its streams.
    """
    wiring = ChildStdio(shows_output=shows_output)
    relay = SignalForwarder(is_own_session=wiring.is_interactive, resize=wiring.resize)

    try:
        process = _spawn(words, wiring, relay)
    finally:
        wiring.close_child_ends()
    wiring.enter_raw_mode()
    try:
        relay.start(process)
        started()
        returncode = _pass_through(process, wiring, listen)
    finally:
        wiring.restore()
    signals = set(relay.seen)
    if wiring.is_interactive and -returncode in (signal.SIGINT, signal.SIGQUIT):
        signals.add(-returncode)  # typed: the pseudo-terminal made a signal of it
    return ExitResult(returncode, frozenset(signals))


def _spawn(
    words: Sequence[str], wiring: ChildStdio, relay: SignalForwarder
) -> "subprocess.Popen[bytes]":
    def become_command() -> None:
        relay.restore_mask()
        if wiring.is_interactive:
            take_terminal()

    def spawn(words: Sequence[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            words,
            stdin=wiring.child_stdin,
            stdout=wiring.child_stdout,
            stderr=wiring.child_stderr,
            start_new_session=wiring.is_interactive,
            preexec_fn=become_command,  # noqa: PLW1509, no thread has been started yet
        )

    try:
        return spawn(words)
    except OSError as error:
        script = shutil.which(words[0])
        if error.errno != errno.ENOEXEC or script is None:
            raise
        # A script without its first line: as a shell, and execvp(3), would do.
        return spawn(["/bin/sh", script, *words[1:]])


def _pass_through(
    process: "subprocess.Popen[bytes]", wiring: ChildStdio, listen: Callable[[Source], Listener]
) -> int:
    ended_fd, alive_fd = os.pipe()  # becomes readable for all threads when we close the other end
    threads = [
        threading.Thread(target=_pump, args=(source, listen(source), ended_fd), daemon=True)
        for source in wiring.sources
    ]
    if wiring.is_interactive:
        arguments = (wiring.keyboard_target, ended_fd)
        threading.Thread(target=_pump_keys, args=arguments, daemon=True).start()
    for thread in threads:
        thread.start()
    returncode = process.wait()
    os.close(alive_fd)
    for thread in threads:
        thread.join()
    return returncode


def _pump(source: Source, listener: Listener, ended_fd: int) -> None:
    listener = _Guarded(listener)
    poll = select.poll()
    poll.register(source.fd, select.POLLIN)
    poll.register(ended_fd, select.POLLIN)
    has_ended, late_bytes = False, 0
    while late_bytes <= _LATE_BYTES:
        waits = [listener.due_in_s(), QUIET_S if has_ended else None]
        shortest = min((wait for wait in waits if wait is not None), default=None)
        ready = {fd for fd, _ in poll.poll(None if shortest is None else shortest * 1000)}
        if source.fd in ready:
            data = read(source.fd)
            if not data or not _write(source.target, data):
                break
            late_bytes += len(data) if has_ended else 0
            listener.feed(data)
        elif ended_fd in ready:
            has_ended = True
            poll.unregister(ended_fd)
        elif has_ended and shortest == QUIET_S:
            break
        listener.tick()
    os.close(source.fd)
    listener.finish()


def _pump_keys(target: int, ended_fd: int) -> None:
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(ended_fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if ended_fd in ready:
            return
        with contextlib.suppress(OSError):
            keys = read(0)
            if not keys or not _write(target, keys):
                return


def _write(fd: int, data: bytes) -> bool:
    """Write all of it; False if nobody takes it any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # someone has made the file that we were given non-blocking
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError:
            return False
    return True


class _Guarded:
    """A listener that is not asked again after it failed."""

    def __init__(self, listener: Listener) -> None:
        self._listener: Listener | None = listener

    def feed(self, data: bytes) -> None:
        if self._listener is not None:
            with self._guard():
                self._listener.feed(data)

    def due_in_s(self) -> float | None:
        return None if self._listener is None else self._listener.due_in_s()

    def tick(self) -> None:
        if self._listener is not None:
            with self._guard():
                self._listener.tick()

    def finish(self) -> None:
        if self._listener is not None:
            with self._guard():
                self._listener.finish()

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._listener = None
