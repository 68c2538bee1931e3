"""One stream's bytes as the texts of `logged` events.

A text ends at a line's end wherever one is near: it holds the complete lines of a short while, at
most `MAX_TEXT_BYTES`. What is no UTF-8 is replaced, visibly. A line that does not end (a prompt,
a progress bar) goes out after a longer while.
"""

import codecs
import time
from collections.abc import Callable
from typing import Final

MAX_TEXT_BYTES: Final = 16 * 1024
LINES_WAIT_S: Final = 0.25
REST_WAITS_S: Final = 1.0


class OutputRecorder:
    """Used by one thread. `write` is given each text; `newlines`: a terminal's `\\r\\n` is one."""

    def __init__(self, write: Callable[[str], None], *, is_terminal: bool = False) -> None:
        self._write = write
        self._is_terminal = is_terminal
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = bytearray()
        self._since: float | None = None
        self.last_line = ""

    def feed(self, data: bytes) -> None:
        """Take the next bytes, of any length."""
        self._pending += data
        if self._since is None:
            self._since = time.monotonic()
        while len(self._pending) >= MAX_TEXT_BYTES:
            cut = self._pending.rfind(b"\n", 0, MAX_TEXT_BYTES) + 1
            self._send(cut or MAX_TEXT_BYTES)

    def due_in_s(self) -> float | None:
        """How long until `tick` has something to do; None: nothing is pending."""
        if self._since is None:
            return None
        wait_s = LINES_WAIT_S if b"\n" in self._pending else REST_WAITS_S
        return max(0.0, self._since + wait_s - time.monotonic())

    def tick(self) -> None:
        """Send what has waited long enough."""
        if self._since is None or self.due_in_s():
            return
        self._send(self._pending.rfind(b"\n") + 1 or len(self._pending))

    def finish(self) -> None:
        """Send the rest."""
        self._send(len(self._pending), final=True)

    def _send(self, count: int, *, final: bool = False) -> None:
        text = self._decoder.decode(bytes(self._pending[:count]), final)
        del self._pending[:count]
        self._since = time.monotonic() if self._pending else None
        if self._is_terminal:
            text = text.replace("\r\n", "\n")
        if text:
            self._write(text)
            last = text.rstrip().rpartition("\n")[2].strip()
            self.last_line = last or self.last_line
