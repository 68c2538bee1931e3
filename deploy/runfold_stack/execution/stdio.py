"""The connections of the command's three standard streams.

A stream that is a terminal becomes a pseudo-terminal for the command, so that colours, progress
bars and line buffering stay as they are; any other becomes a pipe. If stdin and stdout are
terminals and this process is in their foreground, the pseudo-terminal is the command's controlling
terminal, and the real one is in raw mode: every key goes through. Otherwise the command stays in
this session and process group, where the real terminal's Ctrl-C and Ctrl-Z reach it.
"""

import contextlib
import errno
import fcntl
import os
import termios
import tty
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

StreamName = Literal["stdout", "stderr"]

_OFLAG: Final = 1


class Source(NamedTuple):
    """The command writes to `child_fd`; its output is read from `fd` and passed to `target`."""

    name: StreamName
    child_fd: int
    fd: int
    target: int
    is_terminal: bool


class ChildStdio:
    """`sources` has one entry per pipe or pseudo-terminal; two streams may share one.

    Without `shows_output` the command is not interactive, and its output is recorded only.
    """

    def __init__(self, *, shows_output: bool = True) -> None:
        _fill_standard_fds()
        self.is_interactive = shows_output and os.isatty(0) and os.isatty(1) and is_foreground()
        self.sources: list[Source] = []
        stdout = self._connect("stdout", 1)
        shares = stdout.is_terminal and os.isatty(2) and os.fstat(1).st_rdev == os.fstat(2).st_rdev
        stderr = stdout if shares else self._connect("stderr", 2)
        self.child_stdin = stdout.child_fd if self.is_interactive else 0
        self.child_stdout, self.child_stderr = stdout.child_fd, stderr.child_fd
        if not shows_output:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            self.sources = [source._replace(target=nowhere) for source in self.sources]

    def close_child_ends(self) -> None:
        """Close the command's ends after its start, else its output would never end."""
        for source in self.sources:
            os.close(source.child_fd)

    def resize(self) -> None:
        """Copy the terminal's size to the pseudo-terminals."""
        for source in self.sources:
            if source.is_terminal:
                with contextlib.suppress(OSError):
                    size = fcntl.ioctl(source.target, termios.TIOCGWINSZ, bytes(8))
                    fcntl.ioctl(source.fd, termios.TIOCSWINSZ, size)

    @contextlib.contextmanager
    def raw_mode(self) -> Iterator[None]:
        """Let the pseudo-terminal interpret the keys; restore the terminal's mode at the end."""
        if not self.is_interactive:
            yield
            return
        saved = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSADRAIN)
        try:
            yield
        finally:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(0, termios.TCSADRAIN, saved)

    def _connect(self, name: StreamName, target: int) -> Source:
        is_terminal = os.isatty(target)
        fd, child_fd = _open_terminal(target, self.is_interactive) if is_terminal else os.pipe()
        source = Source(name, child_fd, fd, target, is_terminal)
        self.sources.append(source)
        if is_terminal:
            self.resize()
        return source


def take_terminal() -> None:
    """Make stdin the controlling terminal of the command's new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read(fd: int) -> bytes:
    """Return some bytes, none at the end; a pseudo-terminal without writers is at its end."""
    try:
        return os.read(fd, 65536)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


def _open_terminal(like: int, is_interactive: bool) -> tuple[int, int]:
    fd, child_fd = os.openpty()
    attributes = termios.tcgetattr(like)
    if not is_interactive:
        attributes[_OFLAG] &= ~termios.OPOST  # the real terminal does it
    termios.tcsetattr(child_fd, termios.TCSANOW, attributes)
    return fd, child_fd


def is_foreground() -> bool:
    """Return whether this process is in the foreground of the terminal on stdin."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _fill_standard_fds() -> None:
    """Open closed descriptors 0, 1 and 2, else the next file opened would get their number."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
