"""Tables without borders, so that their columns can be copied, cut to the window's width.

A narrow window omits columns that can be spared, then cuts names and messages, the longest first;
ids and figures are shown whole or not at all.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # slow to import, and `exec` prints nothing
    import rich.table

GAP: Final = 2
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
_OPTIONAL: Final = ("PROJECT", "TOKENS", "COST", "ERROR")
"""Columns that are omitted if all their cells are empty."""


class Table:
    """Rows of cells, each a text or a `rich.text.Text`."""

    def __init__(self, *columns: str, right: tuple[str, ...] = (), has_header: bool = True) -> None:
        self._columns = columns
        self._right = right
        self._has_header = has_header
        self.rows: list[tuple[Any, ...]] = []

    def add_row(self, *cells: Any) -> None:
        self.rows.append(cells)

    def fit(self, width: int) -> tuple["rich.table.Table", int, list[str]]:
        """Return the table for a window, its width without the last gap, and omitted columns.

        Its width is larger than the window's if not even two columns fit.
        """
        from rich.cells import cell_len
        from rich.table import Table as RichTable

        columns = dict(zip(self._columns, zip(*self.rows, strict=True), strict=True))
        natural = {
            name: max(cell_len(str(cell)) for cell in (name, *cells))
            for name, cells in columns.items()
            if name not in _OPTIONAL or any(map(str, cells))
        }
        least = {name: min(size, _MIN_WIDTHS.get(name, size)) for name, size in natural.items()}
        left_out = []
        for name in _EXPENDABLE:
            if _total(least) <= width:
                break
            if least.pop(name, None) is not None:
                left_out.append(name)
        widths = {name: natural[name] for name in least}
        while _total(widths) > width and widths != least:
            longest = max(widths, key=lambda name: widths[name] - least[name])
            widths[longest] -= 1
        table = RichTable(
            box=None,
            pad_edge=False,
            header_style="bold",
            padding=(0, GAP, 0, 0),
            show_header=self._has_header,
        )
        for name, size in widths.items():
            is_folded = name in _FOLDED
            table.add_column(
                name,
                width=size,
                justify="right" if name in self._right else "left",
                no_wrap=not is_folded,
                overflow="fold" if is_folded else "ellipsis",
            )
        for row in zip(*(columns[name] for name in widths), strict=True):
            table.add_row(*row)
        return table, _total(widths), left_out

    def stacked(self) -> str:
        """Return one line per cell, for windows in which no two columns fit."""
        wide = max(map(len, self._columns))
        return "\n".join(
            "".join(
                f"{name:<{wide}}  {cell}\n"
                for name, cell in zip(self._columns, row, strict=True)
                if str(cell)
            )
            for row in self.rows
        )


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)
