"""Lines in bounded memory."""

import os
from pathlib import Path

from runfold_stack.commands.ingest import Line, read_lines


def lines_of(path: Path, max_bytes: int = 10) -> list[Line | None]:
    """All lines of a file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(read_lines(fd, max_bytes=max_bytes, idle_ms=1000))
    finally:
        os.close(fd)


def test_lines_are_numbered(tmp_path: Path) -> None:
    """Empty lines count; the last one needs no end."""
    path = tmp_path / "lines"
    path.write_bytes(b"one\n\nthree")
    assert lines_of(path) == [Line(1, b"one", 3), Line(2, b"", 0), Line(3, b"three", 5)]


def test_a_line_that_is_too_long_comes_without_content(tmp_path: Path) -> None:
    """However long it is, its neighbours come whole."""
    path = tmp_path / "lines"
    path.write_bytes(b"one\n" + b"x" * 700_000 + b"\nthree\n")
    assert lines_of(path) == [Line(1, b"one", 3), Line(2, b"", 700_000), Line(3, b"three", 5)]


def test_a_pause_is_reported() -> None:
    """When nothing comes for a while, the reader can send what it has."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"one\ntw")
    lines = read_lines(read_fd, max_bytes=10, idle_ms=1)
    assert next(lines) == Line(1, b"one", 3)
    assert next(lines) is None
    os.write(write_fd, b"o\n")
    os.close(write_fd)
    assert list(lines) == [Line(2, b"two", 3)]
    os.close(read_fd)
