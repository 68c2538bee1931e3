"""Forward signals to the command.

Signals are blocked in every thread; one thread collects them with their sender. The terminal sends
Ctrl-C to the whole process group, so the command has received it already and must not get it twice.
A command in a session of its own gets every signal from here.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from subprocess import Popen
from typing import Final

from .stdio import is_foreground

_COLLECTED: Final = {
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH),
}


class SignalForwarder:
    """`seen`: the signals that were received while the command ran."""

    def __init__(self, *, is_own_session: bool, resize: Callable[[], None]) -> None:
        self.seen: set[int] = set()
        self._is_own_session = is_own_session
        self._resize = resize
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _COLLECTED)

    def restore_mask(self) -> None:
        """Restore the signal mask in the child process, before it becomes the command."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def start(self, process: "Popen[bytes]") -> None:
        """Forward signals, including those received since the constructor."""
        threading.Thread(target=self._run, args=(process,), daemon=True).start()

    def _run(self, process: "Popen[bytes]") -> None:
        while True:
            number, from_terminal = _wait()
            if number == signal.SIGWINCH:
                self._resize()
                continue
            self.seen.add(number)
            if self._is_own_session or not from_terminal:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    process.send_signal(number)


def _wait() -> tuple[int, bool]:
    """Return the next signal, and whether the kernel sent it (for a terminal)."""
    if sys.platform == "darwin":  # no sigwaitinfo: guess
        number = signal.sigwait(_COLLECTED)
        return number, number in (signal.SIGINT, signal.SIGQUIT) and is_foreground()
    info = signal.sigwaitinfo(_COLLECTED)
    return info.si_signo, info.si_code > 0
