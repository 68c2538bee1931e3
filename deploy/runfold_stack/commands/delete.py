"""`runfold delete`: runs that nobody wants any more, with all that is theirs."""

import sys
import threading
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from datetime import UTC, datetime

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import FAILED, INTERRUPTED, OK, USAGE, CommandFailed
from runfold_stack.options.run_filters import add_filters, filters_of
from runfold_stack.options.selection import progress_bar
from runfold_stack.options.values import whole_number
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.output import Output, plain
from runfold_storage.admin import MAX_DAYS, Admin, make_deletion
from runfold_storage.jobs import JobInterrupted
from runfold_storage.retention.run_deletion import Deletion

from . import Context

_EPILOG = """\
examples:
  runfold delete RUN RUN
  runfold delete --project acme --older-than 90
  runfold delete --status failed --workflow etl --dry-run
  runfold delete --all --yes

Events, rows and figures go; what comes late does not bring a run back. The age of a run counts from
its end, or from its last sign of life. It asks before it deletes, unless --yes is given. What a
filter means is what `runfold runs` lists with it. A run that only the archive has can be deleted by
its id: nobody is shown it any more, and `runfold restore` leaves it out.

Times are RFC 3339 (2026-11-21T02:00:00Z), a date, or how long ago: 90s 15m 24h 7d 2w.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("runs", nargs="*", metavar="RUN", help="these runs, by their ids")
    add_filters(parser)
    parser.add_argument(
        "--older-than",
        type=whole_number(1, MAX_DAYS),
        metavar="DAYS",
        help="runs that ended so many days ago",
    )
    parser.add_argument("--all", action="store_true", help="every run there is")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="only say how many they are")
    how.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Ask, delete, say how many went."""
    deletion = _deletion_of(arguments)
    settings = context.settings
    upkeep = Admin(require_database(settings), timeout_s=600, archive_url=settings.archive_url)
    if deletion is None:
        return _delete_named(arguments, context.output, upkeep)
    n = upkeep.count(deletion)
    if arguments.dry_run:
        return _tell(context.output, 0, f"would delete {n:,} runs", would_delete=n)
    if n:
        _ask(arguments, f"delete {n:,} runs, with all their events?")
    deleted = 0

    def work(stop: threading.Event) -> int:
        def told(more: int) -> None:
            nonlocal deleted
            deleted += more
            seen(deleted, "deleting")

        return upkeep.delete_as_told(deletion, told, stop=stop)

    with progress_bar("deleting", n) as seen:
        try:
            run_stoppable(work)
        except JobInterrupted:
            context.output.note(f"interrupted after {deleted:,} runs; they are gone")
            return INTERRUPTED
    return _tell(context.output, deleted, f"deleted {deleted:,} runs")


def _deletion_of(arguments: Namespace) -> Deletion | None:
    """None: runs were named."""
    filters = filters_of(arguments, datetime.now(UTC))
    given = arguments.older_than is not None or bool(filters)
    if arguments.runs:
        if given or arguments.all:
            raise CommandFailed("name runs, or give filters, not both", USAGE)
        return None
    if given == arguments.all:
        raise CommandFailed(
            "--all goes with no filter: leave it out, or the filters"
            if given
            else "name runs, or give a filter; --all deletes every run",
            USAGE,
        )
    return make_deletion(arguments.older_than, everything=arguments.all, **filters)


def _delete_named(arguments: Namespace, output: Output, upkeep: Admin) -> int:
    wanted = list(dict.fromkeys(arguments.runs))
    if arguments.dry_run:
        raise CommandFailed("--dry-run: goes with filters; `runfold show RUN` shows a run", USAGE)
    _ask(arguments, f"delete {len(wanted):,} runs, with all their events?")
    unknown = [run for run in wanted if not upkeep.delete_run(run)]
    for run in unknown:
        output.note(f"there is no run {plain(run)!r}")
    deleted = len(wanted) - len(unknown)
    _tell(output, deleted, f"deleted {deleted:,} runs", unknown=unknown)
    return FAILED if unknown else OK


def _ask(arguments: Namespace, question: str) -> None:
    if arguments.yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandFailed(f"{question} Nobody can be asked here: add --yes", USAGE)
    sys.stderr.write(f"runfold: {question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed("nothing was deleted")


def _tell(output: Output, deleted: int, text: str, **more: object) -> int:
    if output.is_json:
        output.json({"deleted": deleted, **more})
    else:
        output.line(text)
    return OK
