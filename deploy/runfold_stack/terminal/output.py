"""The output of a command: results on stdout, messages on stderr.

With `--json`, stdout is one JSON document and nothing else. Only terminals get colours and tables
that fit the window; files and pipes get plain, complete lines. Control characters in names and
messages never reach a terminal.
"""

import re
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:  # slow to import, and `exec` prints nothing
    from rich.console import Console
    from rich.table import Table

STYLES: Final = {
    "queued": "dim",
    "pending": "dim",
    "running": "blue",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "skipped": "dim",
    "lost": "magenta",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
}

_WIDE: Final = 100_000
_GAP: Final = 2
_FOLDED: Final = ("RUN", "TEXT")
"""Columns that wrap instead of being cut, because every character counts."""
_MIN_WIDTHS: Final = {
    "RUN": 36,
    "WORKFLOW": 12,
    "PROJECT": 8,
    "ERROR": 16,
    "NODE": 12,
    "AFTER": 8,
    "TEXT": 40,
}
"""Columns that may be cut, with their smallest widths."""
_EXPENDABLE: Final = (
    *("ERROR", "TOKENS", "COST", "MAX", "CANCELLED", "RUNNING", "NODES", "PROJECT", "TIME", "P95"),
    *("AFTER", "STARTED", "DURATION", "P50", "COMPLETED", "FAILED", "SUCCESS"),
)
"""Columns that a narrow window omits, in this order."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Output:
    """Writes a command's results; `is_json` if `--json` was given."""

    def __init__(self, *, is_json: bool = False) -> None:
        self.is_json = is_json

    @cached_property
    def console(self) -> "Console":
        """The console for results; for files and pipes it is as wide as necessary."""
        from rich.console import Console

        width = None if sys.stdout.isatty() else _WIDE
        return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)

    @property
    def is_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return sys.stdout.isatty()

    def json(self, value: Any, *, on_one_line: bool = False) -> None:
        """Print the JSON document, on one line if programs read it while the command runs."""
        document = msgspec.json.encode(value)
        if not on_one_line:
            document = msgspec.json.format(document, indent=2)
        sys.stdout.flush()
        sys.stdout.buffer.write(document + b"\n")
        sys.stdout.buffer.flush()

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print one line of the result, unwrapped."""
        self.console.print(text, style=style, soft_wrap=True)

    def result(self, document: Any, text: str) -> None:
        """Print the result: the document with `--json`, else one line of text."""
        if self.is_json:
            self.json(document)
        else:
            self.line(text)

    def line_now(self, text: str) -> None:
        """Print one line and flush it."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def fitted(self, table: "Table") -> "Table":
        """Return a table that fits the window, with fewer columns if necessary."""
        shorter, _ = _without_columns(table, self.console.width)
        _fit(shorter, self.console.width)
        return shorter

    def table(self, table: "Table") -> None:
        """Print a table that fits the window; print nothing if it has no rows."""
        if table.row_count:
            shorter, left_out = _without_columns(table, self.console.width)
            width = _fit(shorter, self.console.width)
            if width - _GAP > self.console.width:
                self.text_as_is(_stacked(table))
                return
            if left_out:
                self.note(f"the window is too narrow for {' '.join(left_out)}; `--json` has all")
            with self.console.capture() as rendered:
                self.console.print(shorter, width=width, crop=False)
            lines = rendered.get().splitlines()
            self.text_as_is("\n".join(line.rstrip() for line in lines) + "\n")

    def text(self, text: str) -> None:
        """Print recorded text; control characters are masked only on a terminal."""
        self.text_as_is(plain(text) if self.is_terminal else text)

    def text_as_is(self, text: str) -> None:
        """Print text without control characters."""
        sys.stdout.write(text)

    def note(self, text: str) -> None:
        """Print a message that is not part of the result, on stderr."""
        say(text)


def say(text: str) -> None:
    """Write `runfold: …` to stderr; ignore a stderr that is closed."""
    try:
        sys.stderr.write(f"runfold: {plain(text)}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return


def plain(text: str) -> str:
    """Return the text with control and bidirectional characters replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def cell(text: str) -> str:
    """Return a name or message as one line without control characters."""
    return plain(" ".join(text.split()))


def shown_name(name: str | None) -> str:
    """Return a project or workflow for a table; it is unknown for an incomplete run."""
    return "(unknown)" if name is None else cell(name)


def make_table(*columns: str, right: tuple[str, ...] = ()) -> "Table":
    """Make a table without borders, so that its columns can be copied."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column not in _FOLDED,
            overflow="fold" if column in _FOLDED else "ellipsis",
        )
    return table


def _without_columns(table: "Table", width: int) -> tuple["Table", list[str]]:
    """Drop as few columns as needed to show the others whole; return the dropped names, too."""
    least = {
        str(column.header): min(natural, _MIN_WIDTHS.get(str(column.header), natural))
        for column, natural in zip(table.columns, _natural_widths(table), strict=True)
    }
    left_out: list[str] = []
    for name in _EXPENDABLE:
        kept = [bound for header, bound in least.items() if header not in left_out]
        if sum(kept) + _GAP * (len(kept) - 1) <= width:
            break
        if name in least:
            left_out.append(name)
    columns = [column for column in table.columns if str(column.header) not in left_out]
    shorter = make_table(
        *(str(column.header) for column in columns),
        right=tuple(str(column.header) for column in columns if column.justify == "right"),
    )
    for cells in zip(*(column.cells for column in columns), strict=True):
        shorter.add_row(*cells)
    return shorter, left_out


def _stacked(table: "Table") -> str:
    """Render one line per cell, for windows in which no two columns fit."""
    headers = [str(column.header) for column in table.columns]
    wide = max(map(len, headers))
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return "\n".join(
        "".join(f"{h:<{wide}}  {c}\n" for h, c in zip(headers, row, strict=True) if str(c))
        for row in rows
    )


def _natural_widths(table: "Table") -> list[int]:
    from rich.cells import cell_len

    return [
        max(cell_len(str(cell)) for cell in (column.header, *column.cells))
        for column in table.columns
    ]


def _fit(table: "Table", width: int) -> int:
    """Set the columns' widths; return the table's width, which may still be too large.

    Only names and messages are cut, the longest first.
    """
    widths = _natural_widths(table)
    least = [
        min(natural, _MIN_WIDTHS.get(str(column.header), natural))
        for natural, column in zip(widths, table.columns, strict=True)
    ]
    room = width - _GAP * (len(widths) - 1)
    while sum(widths) > room:
        spare = [natural - bound for natural, bound in zip(widths, least, strict=True)]
        if not any(spare):
            break
        widths[spare.index(max(spare))] -= 1
    for column, chosen in zip(table.columns, widths, strict=True):
        column.width = chosen
    return sum(widths) + _GAP * len(widths)
