"""The last lines of a text, whole, whether or not it ends with a line."""

import pytest

from runfold_stack.terminal.log_view import last_lines


@pytest.mark.parametrize(
    ("text", "n", "end"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\nc\n", 3, "a\nb\nc\n"),
        ("a\nb\n", 9, "a\nb\n"),
        ("a\n\n\n", 2, "\n\n"),
        ("a", 1, "a"),
        ("", 1, ""),
        ("\n", 1, "\n"),
        ("a\x0bb\u2028c\nd\n", 2, "a\x0bb\u2028c\nd\n"),
    ],
)
def test_last_lines(text: str, n: int, end: str) -> None:
    """A line ends with a newline and with nothing else."""
    assert last_lines(text, n) == end
