"""Turn the bytes of one output stream into the texts of `logged` events.

A text holds the complete lines of a short interval, at most `MAX_TEXT_BYTES`. An incomplete line (a
prompt, a progress bar) is sent after a longer interval. Invalid UTF-8 is replaced by U+FFFD.
"""

import codecs
import time
from collections.abc import Callable
from typing import Final

MAX_TEXT_BYTES: Final = 16 * 1024
LINES_WAIT_S: Final = 0.25
INCOMPLETE_LINE_WAIT_S: Final = 1.0


class OutputRecorder:
    """Calls `write` with each text. For one thread; a terminal's `\\r\\n` counts as one newline."""

    def __init__(self, write: Callable[[str], None], *, is_terminal: bool = False) -> None:
        self._write = write
        self._is_terminal = is_terminal
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = bytearray()
        self._since: float | None = None
        self.last_line = ""

    def feed(self, data: bytes) -> None:
        """Add the next bytes, if any, and send those that have waited long enough."""
        self._pending += data
        if self._since is None and data:
            self._since = time.monotonic()
        while len(self._pending) >= MAX_TEXT_BYTES:
            cut = self._pending.rfind(b"\n", 0, MAX_TEXT_BYTES) + 1
            self._send(cut or MAX_TEXT_BYTES)
        if self._since is not None and not self.due_in_s():
            self._send(self._pending.rfind(b"\n") + 1 or len(self._pending))

    def due_in_s(self) -> float | None:
        """Return the seconds until `feed` must be called again; None: no bytes are pending."""
        if self._since is None:
            return None
        wait_s = LINES_WAIT_S if b"\n" in self._pending else INCOMPLETE_LINE_WAIT_S
        return max(0.0, self._since + wait_s - time.monotonic())

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
