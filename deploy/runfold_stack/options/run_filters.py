"""Options that filter runs: for `runs`, `watch`, `export` and `delete`."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import datetime
from typing import Any

from runfold_stack.terminal.formats import length

from .values import name, period


def add_filters(parser: ArgumentParser) -> None:
    """Add the options; a run must match all that are given."""
    group = parser.add_argument_group("filters, which can be combined")
    group.add_argument("--project", type=name, help="only runs of this project")
    group.add_argument("--workflow", type=name, help="only runs of this workflow")
    group.add_argument(
        "--status", action="append", help="only runs with this status; can be repeated"
    )
    group.add_argument("--trigger", type=name, help="only runs with this type of trigger")
    group.add_argument("--user", type=name, help="only runs of this user")
    group.add_argument("--session", type=name, help="only runs of this session")
    group.add_argument(
        "--tag",
        action="append",
        metavar="KEY=VALUE",
        help="only runs with this tag; if repeated, with all of them",
    )
    group.add_argument("--since", metavar="TIME", help="only runs that started at or after TIME")
    group.add_argument("--until", metavar="TIME", help="only runs that started before TIME")
    for side, words in (("min", "at least"), ("max", "at most")):
        group.add_argument(
            f"--{side}-duration",
            type=_length,
            metavar="TIME",
            help=f"{words} this long: 250ms 90s 15m 2h",
        )
    for side, words in (("min", "at least"), ("max", "at most")):
        group.add_argument(
            f"--{side}-cost", type=float, metavar="USD", help=f"cost {words} this many US dollars"
        )
    group.add_argument("--error-type", type=name, help="only runs that failed with this error")
    group.add_argument("--parent-run", type=name, help="only children of this run")
    group.add_argument(
        "--search",
        type=name,
        metavar="TEXT",
        help="only runs with TEXT in their workflow, id, tags, error type or message",
    )
    group.add_argument(
        "--payload",
        type=name,
        metavar="TEXT",
        help="only runs with TEXT in their inputs or outputs: see runfold search",
    )
    group.add_argument(
        "--fingerprint", type=name, help="only failures of this group: see runfold failures"
    )


def filters_of(arguments: Namespace, now: datetime) -> dict[str, Any]:
    """Return the given filters as arguments of `History.runs`."""
    since, until = period(arguments, now)
    given = {
        "project": arguments.project,
        "workflow": arguments.workflow,
        "status": arguments.status,
        "trigger": arguments.trigger,
        "user": arguments.user,
        "session": arguments.session,
        "tag": arguments.tag,
        "started_after": since,
        "started_before": until,
        "min_duration_ms": arguments.min_duration,
        "max_duration_ms": arguments.max_duration,
        "min_cost_usd": arguments.min_cost,
        "max_cost_usd": arguments.max_cost,
        "error_type": arguments.error_type,
        "parent_run": arguments.parent_run,
        "fingerprint": arguments.fingerprint,
        "q": arguments.search,
        "payload": arguments.payload,
    }
    return {parameter: value for parameter, value in given.items() if value is not None}


def _length(text: str) -> float:
    milliseconds = length(text)
    if milliseconds is None:
        raise ArgumentTypeError(f"{text!r}: expected a duration like 250ms 90s 15m 2h 1d")
    return milliseconds
