"""Run a command and pass its streams through, byte for byte, without delay.

Each stream has a thread that first passes bytes on and then gives them to a recorder. When the
reader of the output closes its pipe, the command's pipe is closed, too.
"""

import contextlib
import errno
import os
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from .output_recorder import OutputRecorder
from .signal_forwarding import SignalForwarder
from .stdio import ChildStdio, Source, read, take_terminal

QUIET_S: Final = 0.5
"""After the command's end, background processes may still hold its pipe. Reading ends when they
have been silent for this long, or have written too much."""
_LATE_BYTES: Final = 1024 * 1024
"""More than a pipe holds, so that the command's own output is complete."""


class ExitResult(NamedTuple):
    """`returncode` is negative after a signal; `signals` were received while the command ran."""

    returncode: int
    signals: frozenset[int]


def run_command(
    words: Sequence[str],
    started: Callable[[], None],
    listen: Callable[[Source], OutputRecorder],
    *,
    shows_output: bool = True,
) -> ExitResult:
    """Run the command to its end; raise OSError if it cannot be started.

    `started` is called once the command runs, `listen` once for each of its streams.
    """
    stdio = ChildStdio(shows_output=shows_output)
    forwarder = SignalForwarder(is_own_session=stdio.is_interactive, resize=stdio.resize)
    try:
        process = _spawn(words, stdio, forwarder)
    finally:
        stdio.close_child_ends()
    with stdio.raw_mode():
        forwarder.start(process)
        started()
        returncode = _pass_through(process, stdio, listen)
    signals = set(forwarder.seen)
    if stdio.is_interactive and -returncode in (signal.SIGINT, signal.SIGQUIT):
        signals.add(-returncode)  # a key: the pseudo-terminal turned it into a signal
    return ExitResult(returncode, frozenset(signals))


def _spawn(
    words: Sequence[str], stdio: ChildStdio, forwarder: SignalForwarder
) -> "subprocess.Popen[bytes]":
    def become_command() -> None:
        forwarder.restore_mask()
        if stdio.is_interactive:
            take_terminal()

    def spawn(words: Sequence[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            words,
            stdin=stdio.child_stdin,
            stdout=stdio.child_stdout,
            stderr=stdio.child_stderr,
            start_new_session=stdio.is_interactive,
            preexec_fn=become_command,  # noqa: PLW1509, no thread has been started yet
        )

    try:
        return spawn(words)
    except OSError as error:
        script = shutil.which(words[0])
        if error.errno != errno.ENOEXEC or script is None:
            raise
        # A script without `#!` line, which shells and execvp(3) run with /bin/sh, too.
        return spawn(["/bin/sh", script, *words[1:]])


def _pass_through(
    process: "subprocess.Popen[bytes]",
    stdio: ChildStdio,
    listen: Callable[[Source], OutputRecorder],
) -> int:
    ended_fd, alive_fd = os.pipe()  # closing `alive_fd` wakes all threads
    threads = [
        threading.Thread(
            target=_forward_output, args=(source, listen(source), ended_fd), daemon=True
        )
        for source in stdio.sources
    ]
    if stdio.is_interactive:
        arguments = (stdio.sources[0].fd, ended_fd)
        threading.Thread(target=_forward_keys, args=arguments, daemon=True).start()
    for thread in threads:
        thread.start()
    returncode = process.wait()
    os.close(alive_fd)
    for thread in threads:
        thread.join()
    return returncode


def _forward_output(source: Source, recorder: OutputRecorder, ended_fd: int) -> None:
    poll = select.poll()
    poll.register(source.fd, select.POLLIN)
    poll.register(ended_fd, select.POLLIN)
    has_ended, has_failed, late_bytes = False, False, 0
    while late_bytes <= _LATE_BYTES:
        waits = [None if has_failed else recorder.due_in_s(), QUIET_S if has_ended else None]
        shortest = min((wait for wait in waits if wait is not None), default=None)
        ready = {fd for fd, _ in poll.poll(None if shortest is None else shortest * 1000)}
        data = b""
        if source.fd in ready:
            data = read(source.fd)
            if not data or not _write(source.target, data):
                break
            late_bytes += len(data) if has_ended else 0
        elif ended_fd in ready:
            has_ended = True
            poll.unregister(ended_fd)
        elif has_ended and shortest == QUIET_S:
            break
        if not has_failed:
            try:
                recorder.feed(data)
            except Exception:
                has_failed = True
    os.close(source.fd)
    if not has_failed:
        with contextlib.suppress(Exception):
            recorder.finish()


def _forward_keys(target: int, ended_fd: int) -> None:
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
    """Write all bytes; return False if the reader has closed the file."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # another process has made this shared file non-blocking
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError:
            return False
    return True
