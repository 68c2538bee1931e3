"""Options that say which runs are meant."""

from argparse import ArgumentParser, Namespace
from datetime import datetime
from typing import Any

from runfold_stack.options import name, period


def add_filters(parser: ArgumentParser) -> None:
    """Add the options; a run must meet all that are given."""
    group = parser.add_argument_group("filters, which may be combined")
    group.add_argument("--project", type=name, help="only runs of this project")
    group.add_argument("--workflow", type=name, help="only runs of this workflow")
    group.add_argument(
        "--status", action="append", help="only runs with this status; may be given repeatedly"
    )
    group.add_argument("--since", metavar="TIME", help="only runs that started then or later")
    group.add_argument("--until", metavar="TIME", help="only runs that started before")


def filters_of(arguments: Namespace, now: datetime) -> dict[str, Any]:
    """What was given, as `History.runs` takes it."""
    since, until = period(arguments, now)
    given = {
        "project": arguments.project,
        "workflow": arguments.workflow,
        "status": arguments.status,
        "started_after": since,
        "started_before": until,
    }
    return {parameter: value for parameter, value in given.items() if value is not None}
