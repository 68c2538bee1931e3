"""Read lines from a file, a pipe or a terminal as they arrive, in bounded memory."""

import os
import select
from collections.abc import Iterator
from typing import Final, NamedTuple

_CHUNK: Final = 256 * 1024


class Line(NamedTuple):
    """A line without its newline; `content` is empty if the line is too long."""

    number: int
    content: bytes
    size: int


def read_lines(fd: int, *, max_bytes: int, idle_ms: int) -> Iterator[Line | None]:
    """Yield each line; yield None after a pause, so that the caller can flush its buffer."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    number, rest, skipped, is_idle = 1, b"", 0, True
    while True:
        if not is_idle and not poll.poll(idle_ms):
            is_idle = True
            yield None
        chunk = os.read(fd, _CHUNK)
        is_idle = False
        if not chunk:
            break
        *whole, tail = chunk.split(b"\n")
        for piece in whole:
            size = skipped + len(rest) + len(piece)
            yield Line(number, rest + piece if size <= max_bytes else b"", size)
            number, rest, skipped = number + 1, b"", 0
        rest += tail
        if len(rest) > max_bytes:
            skipped, rest = skipped + len(rest), b""
    if rest or skipped:
        size = skipped + len(rest)
        yield Line(number, rest if size <= max_bytes else b"", size)
