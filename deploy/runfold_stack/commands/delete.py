"""`runfold delete`: delete runs with their events and statistics."""

import sys
from argparse import Namespace

from runfold_stack.endpoints import require_database
from runfold_stack.errors import FAILED, OK, USAGE, CommandFailed
from runfold_stack.options import JSON, RUN_FILTERS, filters_of, one_of, option, whole_number
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.output import Output, plain, progress_bar, say
from runfold_storage.admin import MAX_DAYS, Admin, make_deletion
from runfold_storage.retention.run_deletion import Deletion

from . import Context, command


@command(
    option("runs", nargs="*", metavar="RUN", help="the ids of the runs"),
    RUN_FILTERS,
    option(
        "--older-than",
        type=whole_number(1, MAX_DAYS),
        metavar="DAYS",
        help="only runs that ended at least DAYS days ago",
    ),
    option("--all", action="store_true", help="every run"),
    one_of(
        option("--dry-run", action="store_true", help="only print how many would be deleted"),
        option("--yes", action="store_true", help="do not ask for confirmation"),
    ),
    JSON,
)
def delete(arguments: Namespace, context: Context) -> int:
    """examples:
      runfold delete RUN RUN
      runfold delete --project acme --older-than 90
      runfold delete --status failed --workflow etl --dry-run
      runfold delete --all --yes

    Deletes events, rows and statistics; late events do not bring a run back. The age of a run
    counts from its end, or from its last sign of life. The command asks for confirmation unless
    --yes is given. Filters select the same runs as in `runfold runs`. A run that is only in the
    archive can be deleted by its id: it is no longer shown, and `runfold restore` skips it.
    """
    deletion = _deletion_of(arguments)
    settings, output = context.settings, context.output
    admin = Admin(require_database(settings), timeout_s=600, archive_url=settings.archive_url)
    if deletion is None:
        return _delete_named(arguments, output, admin)
    total = admin.count(deletion)
    if arguments.dry_run:
        output.result({"deleted": 0, "would_delete": total}, f"would delete {total:,} runs")
        return OK
    if total:
        _confirm(arguments, f"delete {total:,} runs, with all their events?")
    deleted = 0
    with progress_bar("deleting", total) as show:

        def on_progress(more: int) -> None:
            nonlocal deleted
            deleted += more
            show(deleted, "deleting")

        run_stoppable(
            lambda stop: admin.delete_now(deletion, on_progress, stop=stop),
            lambda: f"interrupted after {deleted:,} runs, which stay deleted",
        )
    output.result({"deleted": deleted}, f"deleted {deleted:,} runs")
    return OK


def _deletion_of(arguments: Namespace) -> Deletion | None:
    """Return the filters; None if runs are named by their ids."""
    filters = filters_of(arguments)
    has_filters = arguments.older_than is not None or bool(filters)
    if arguments.runs:
        if has_filters or arguments.all:
            raise CommandFailed("name runs, or give filters, not both", USAGE)
        return None
    if has_filters and arguments.all:
        raise CommandFailed("--all: leave it out, or leave the filters out", USAGE)
    if not has_filters and not arguments.all:
        raise CommandFailed("name runs, or give a filter; --all deletes every run", USAGE)
    return make_deletion(arguments.older_than, everything=arguments.all, **filters)


def _delete_named(arguments: Namespace, output: Output, admin: Admin) -> int:
    wanted = list(dict.fromkeys(arguments.runs))
    if arguments.dry_run:
        raise CommandFailed(
            "--dry-run: works only with filters; `runfold show RUN` shows one run", USAGE
        )
    _confirm(arguments, f"delete {len(wanted):,} runs, with all their events?")
    unknown = [run for run in wanted if not admin.delete_run(run)]
    for run in unknown:
        say(f"there is no run {plain(run)!r}")
    deleted = len(wanted) - len(unknown)
    output.result({"deleted": deleted, "unknown": unknown}, f"deleted {deleted:,} runs")
    return FAILED if unknown else OK


def _confirm(arguments: Namespace, question: str) -> None:
    if arguments.yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandFailed(f"{question} Without a terminal, confirm with --yes", USAGE)
    sys.stderr.write(f"runfold: {question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed("nothing was deleted")
