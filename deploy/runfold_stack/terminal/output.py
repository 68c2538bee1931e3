"""What a command prints: results on stdout, messages on stderr.

With `--json` stdout is one JSON document and nothing else. Colours and fitting to the window are
for terminals; anything else gets plain, complete lines. What users and programs have named
themselves never reaches a terminal with its control characters intact.
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
"""Columns that go on in the next line where they are cut: every character counts."""
_LEAST: Final = {
    "RUN": 36,
    "WORKFLOW": 12,
    "PROJECT": 8,
    "ERROR": 16,
    "NODE": 12,
    "AFTER": 8,
    "TEXT": 40,
}
"""Columns that may be cut, and how far."""
_EXPENDABLE: Final = (
    *("ERROR", "TOKENS", "COST", "MAX", "CANCELLED", "RUNNING", "NODES", "PROJECT", "TIME", "P95"),
    *("AFTER", "STARTED", "DURATION", "P50", "COMPLETED", "FAILED", "SUCCESS"),
)
"""Columns that a narrow window does without, in this order."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Output:
    """Where a command writes to; `is_json` once `--json` was given."""

    def __init__(self, *, is_json: bool = False) -> None:
        self.is_json = is_json

    @cached_property
    def console(self) -> "Console":
        """For results; not a terminal: as wide as they need."""
        from rich.console import Console

        width = None if sys.stdout.isatty() else _WIDE
        return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)

    @property
    def is_terminal(self) -> bool:
        """Whether a person sees the results as they come."""
        return sys.stdout.isatty()

    def json(self, value: Any, *, on_one_line: bool = False) -> None:
        """The one document; on one line where others are to read it while we go on."""
        document = msgspec.json.encode(value)
        if not on_one_line:
            document = msgspec.json.format(document, indent=2)
        sys.stdout.flush()
        sys.stdout.buffer.write(document + b"\n")
        sys.stdout.buffer.flush()

    def line(self, text: str = "", style: str | None = None) -> None:
        """One line of the result, never wrapped by us."""
        self.console.print(text, style=style, soft_wrap=True)

    def line_now(self, text: str) -> None:
        """One line that somebody waits for."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def fitted(self, table: "Table") -> "Table":
        """As much of a table as the window has room for."""
        shorter, _ = _without_columns(table, self.console.width)
        _fit(shorter, self.console.width)
        return shorter

    def table(self, table: "Table") -> None:
        """A table; without one row nothing is printed."""
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
        """A text of someone else's; only a terminal is protected from it."""
        self.text_as_is(plain(text) if self.is_terminal else text)

    def text_as_is(self, text: str) -> None:
        """A text that is known to be harmless."""
        sys.stdout.write(text)

    def note(self, text: str) -> None:
        """A message that is not part of the result."""
        say(text)


def say(text: str) -> None:
    """Write `runfold: …` to stderr; if nobody can read it, that is no reason to fail."""
    try:
        sys.stderr.write(f"runfold: {plain(text)}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return


def plain(text: str) -> str:
    """Text without what would move the cursor, change colours or reverse its direction."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def cell(text: str) -> str:
    """A name or message for one cell of a table: one line, harmless."""
    return plain(" ".join(text.split()))


def shown_name(name: str | None) -> str:
    """A project or workflow; that of a run without a beginning is not known."""
    return "(unknown)" if name is None else cell(name)


def make_table(*columns: str, right: tuple[str, ...] = ()) -> "Table":
    """A table without lines, so that its columns can be cut out and copied."""
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
    """As few columns less as it takes to show the others whole, and which are left out."""
    least = {
        str(column.header): min(natural, _LEAST.get(str(column.header), natural))
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
    """One line a cell, for windows in which no two columns fit."""
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
    """Give the columns their widths; returns the table's, which may still be too wide.

    Numbers and words of ours are never cut; names and messages are, the longest first.
    """
    widths = _natural_widths(table)
    least = [
        min(natural, _LEAST.get(str(column.header), natural))
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
