"""Which runs `rebuild`, `verify` and `repair` are about, and how far they are with them."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runfold_stack.exit_codes import USAGE, CommandFailed
from runfold_storage.checkpoints.positions import count_shards
from runfold_workers.integrity.selection import Selection

from .values import name, period

Seen = Callable[[int, str], None]
"""How many runs were looked at so far, and what is being done."""

TIMES: Final = "Times are RFC 3339 (2026-11-21T02:00:00Z), a date, or how long ago: 24h 7d 2w."


def add_selection(parser: ArgumentParser) -> None:
    """Add the arguments that select runs."""
    parser.add_argument("--run", metavar="RUN", help="only this run")
    parser.add_argument("--project", type=name, help="only runs of this project")
    parser.add_argument("--workflow", type=name, help="only runs of this workflow")
    parser.add_argument("--since", metavar="TIME", help="only runs whose first event came then")
    parser.add_argument("--until", metavar="TIME", help="only runs whose first event came before")


def read_selection(arguments: Namespace, connection: psycopg.Connection) -> Selection:
    """What was selected; raises `CommandFailed` and `BadParameter`."""
    others = (arguments.project, arguments.workflow, arguments.since, arguments.until)
    if arguments.run is not None and any(each is not None for each in others):
        raise CommandFailed("--run: names one run, so leave the other filters out", USAGE)
    since, until = period(arguments, datetime.now(UTC))
    return Selection.of(
        count_shards(connection),
        project=arguments.project,
        workflow=arguments.workflow,
        run=arguments.run,
        since=since,
        until=until,
    )


@contextmanager
def progress_bar(doing: str, total: int, of: str = "runs") -> Iterator[Seen]:
    """A bar on stderr, where that is a terminal."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(of),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr, highlight=False),
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task(doing, total=total or None)

        def seen(looked_at: int, now_doing: str) -> None:
            progress.update(
                task,
                completed=looked_at,
                description=now_doing,
                total=max(total, looked_at) if total else None,
            )

        yield seen
