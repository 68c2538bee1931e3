"""A progress bar on stderr, shown only where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ShowProgress = Callable[[int, str], None]
"""Takes the number of items done so far and the name of the current step."""


@contextmanager
def progress_bar(step: str, total: int, unit: str = "runs") -> Iterator[ShowProgress]:
    """Show a bar for `total` items, an estimate; 0: unknown."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr, highlight=False),
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task(step, total=total or None)

        def show(done: int, current_step: str) -> None:
            progress.update(
                task,
                completed=done,
                description=current_step,
                total=max(total, done) if total else None,
            )

        yield show
