"""`runfold show`: show one run with its nodes, error and output."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from typing import Final

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import USAGE, CommandFailed
from runfold_stack.options.values import name, whole_number
from runfold_stack.terminal.log_view import print_end, print_events, print_output
from runfold_stack.terminal.output import plain
from runfold_stack.terminal.run_view import print_run
from runfold_storage.history import History

from . import Context

TAIL_LINES: Final = 20
_MAX_TAIL: Final = 1_000_000

EPILOG = """\
examples:
  runfold show RUN                    summary, error, nodes, payloads, end of the output
  runfold show RUN --logs             the complete output, unchanged
  runfold show RUN --logs --tail 100  the last 100 lines of output
  runfold show RUN --logs --node N    the output of one node
  runfold show RUN --events           the events, one per line
  runfold show RUN --json

With RUNFOLD_ARCHIVE, archived runs and payloads are shown, too.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("run", metavar="RUN", help="the run's id, as listed by `runfold runs`")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--events", action="store_true", help="print the run's events instead")
    part.add_argument("--logs", action="store_true", help="print the run's complete output instead")
    parser.add_argument(
        "--tail",
        type=whole_number(1, _MAX_TAIL),
        metavar="N",
        help=f"only the last N lines of output, or events (default for the summary: {TAIL_LINES})",
    )
    parser.add_argument("--node", type=name, help="with --logs: only the output of this node")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Print the run, its events or its output."""
    output = context.output
    if arguments.node is not None and not arguments.logs:
        raise CommandFailed("--node: is for --logs", USAGE)
    settings = context.settings
    with History(
        require_database(settings), pool_size=1, archive_url=settings.archive_url
    ) as history:
        details = history.run(arguments.run)
        if details is None:
            raise CommandFailed(
                f"there is no run {plain(arguments.run)!r}: `runfold runs` lists them"
            )
        tail = arguments.tail
        if arguments.events:
            print_events(history, arguments.run, output, tail=tail)
        elif arguments.logs:
            print_output(history, arguments.run, output, node=arguments.node, tail=tail)
        elif output.is_json:
            output.json(details)
        else:
            print_run(details, output, now=datetime.now(UTC))
            print_end(history, arguments.run, output, tail=tail or TAIL_LINES)
    return 0
