"""Options that select runs for `rebuild`, `verify` and `repair`."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from typing import Final

import psycopg

from runfold_stack.exit_codes import USAGE, CommandFailed
from runfold_storage.checkpoints.positions import count_shards
from runfold_workers.integrity.selection import Selection

from .values import name, period

TIMES: Final = "Times are RFC 3339 (2026-11-21T02:00:00Z), a date, or an age: 24h 7d 2w."


def add_selection(parser: ArgumentParser) -> None:
    """Add the options that select runs."""
    parser.add_argument("--run", metavar="RUN", help="only this run")
    parser.add_argument("--project", type=name, help="only runs of this project")
    parser.add_argument("--workflow", type=name, help="only runs of this workflow")
    parser.add_argument("--since", metavar="TIME", help="only runs that began at or after TIME")
    parser.add_argument("--until", metavar="TIME", help="only runs that began before TIME")


def read_selection(arguments: Namespace, connection: psycopg.Connection) -> Selection:
    """Return the selection; raise `CommandFailed` or `BadParameter`."""
    filters = (arguments.project, arguments.workflow, arguments.since, arguments.until)
    if arguments.run is not None and any(each is not None for each in filters):
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
