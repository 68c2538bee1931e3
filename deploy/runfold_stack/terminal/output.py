"""The output of a command: results on stdout, messages on stderr.

Only terminals get colours and tables that fit the window.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import msgspec

from runfold_storage.read_models.summaries import NodeFacts

from .tables import GAP, Table

if TYPE_CHECKING:  # slow to import, and `exec` prints nothing
    from rich.console import Console

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

    def result(self, document: Any, show: str | Callable[[], None]) -> None:
        """Print the document with `--json`, else one line of text or what `show` prints."""
        if self.is_json:
            self.json(document)
        elif isinstance(show, str):
            self.line(show)
        else:
            show()

    def table(self, table: Table) -> None:
        """Print a table that fits the window; print nothing if it has no rows."""
        if not table.rows:
            return
        fitted, width, left_out = table.fit(self.console.width)
        if width > self.console.width:
            sys.stdout.write(table.stacked())
            return
        if left_out:
            say(f"the window is too narrow for {' '.join(left_out)}; `--json` has all")
        with self.console.capture() as rendered:
            self.console.print(fitted, width=width + GAP, crop=False)
        sys.stdout.writelines(f"{line.rstrip()}\n" for line in rendered.get().splitlines())

    def text(self, text: str) -> None:
        """Print recorded text; control characters are masked only on a terminal."""
        sys.stdout.write(plain(text) if self.is_terminal else text)


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


def error_line(*parts: str | None) -> str:
    """Return the first lines of an error's parts as one line without control characters."""
    return cell(": ".join(filter(None, ((part or "").partition("\n")[0] for part in parts))))


def node_name(node: NodeFacts) -> str:
    """Return a node's name for a table, with the number of a further attempt."""
    return cell(node.name) + (f" (attempt {node.attempt})" if node.attempt > 1 else "")


ShowProgress = Callable[[int, str], None]
"""Takes the number of items done so far and the name of the current step."""


@contextmanager
def progress_bar(step: str, total: int, unit: str = "runs") -> Iterator[ShowProgress]:
    """Show a bar for `total` items, an estimate (0: unknown), on stderr if it is a terminal."""
    from rich import progress as bars
    from rich.console import Console

    with bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn(unit),
        bars.TimeRemainingColumn(),
        console=Console(file=sys.stderr, highlight=False),
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task(step, total=total or None)

        def show(done: int, current_step: str) -> None:
            most = max(total, done) if total else None
            progress.update(task, completed=done, description=current_step, total=most)

        yield show
