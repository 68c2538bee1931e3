"""Lines of a file, a pipe or a terminal, as they come, in bounded memory."""

import os
import select
from collections.abc import Iterator
from typing import Final, NamedTuple

_CHUNK: Final = 256 * 1024


class Line(NamedTuple):
    """A line without its end; one that is too long comes without its content."""

    number: int
    content: bytes
    size: int


def read_lines(fd: int, *, max_bytes: int, idle_ms: int) -> Iterator[Line | None]:
    """Each line; None when nothing came for a while, so that what is at hand can go out."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    number, rest, skipped, told = 1, b"", 0, True
    while True:
        if not told and not poll.poll(idle_ms):
            told = True
            yield None
        chunk = os.read(fd, _CHUNK)
        told = False
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
