"""`runfold runs`, `show`, `export`, `delete`: list, show, export and delete runs."""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from runfold_stack.endpoints import open_history, require_database
from runfold_stack.errors import FAILED, OK, USAGE, CommandFailed
from runfold_stack.options import (
    JSON,
    RUN_FILTERS,
    filters_of,
    limit,
    name,
    one_of,
    option,
    whole_number,
)
from runfold_stack.processes.signals import run_stoppable
from runfold_stack.terminal.formats import number
from runfold_stack.terminal.log_view import print_end, print_events, print_output
from runfold_stack.terminal.output import Output, plain, progress_bar, say
from runfold_stack.terminal.run_view import print_run, runs_table
from runfold_storage.admin import MAX_DAYS, Admin, make_deletion
from runfold_storage.history import History
from runfold_storage.parameters import MAX_LIMIT
from runfold_storage.queries.runs.export_formats import FORMATS
from runfold_storage.read_models.summaries import RunPage
from runfold_storage.retention.run_deletion import Deletion

from . import Context, command

_TAIL_LINES: Final = 20
_SEARCH_S: Final = 10
_OLDER: Final = "only runs that ended at least DAYS days ago"


@command(
    RUN_FILTERS,
    limit("runs", 50, MAX_LIMIT),
    option("--cursor", help="continue after the page that printed this cursor"),
    JSON,
)
def runs(arguments: Namespace, context: Context) -> None:
    """examples:
      runfold runs --status failed --status lost --since 24h
      runfold runs --project acme --workflow nightly-report --limit 10
      runfold runs --tag env=prod --user ann --min-duration 5m --min-cost 0.50
      runfold runs --json | jq -r '.runs[].id'

    If there are more runs, the last line has the cursor that continues the list.
    """
    filters = filters_of(arguments)
    with open_history(context.settings) as history:
        page = _read_page(history, filters, arguments.limit, arguments.cursor)
    context.output.result(page, lambda: _print_page(page, context.output, bool(filters)))


def _read_page(
    history: History, filters: dict[str, Any], limit: int, cursor: str | None
) -> RunPage:
    """Read a page; if the scan for matches was cut short, continue it for some seconds."""
    deadline = time.monotonic() + _SEARCH_S
    page = history.runs(**filters, limit=limit, cursor=cursor)
    while len(page.runs) < limit and page.next_cursor and time.monotonic() < deadline:
        more = history.runs(**filters, limit=limit - len(page.runs), cursor=page.next_cursor)
        found = page.runs + more.runs
        page = msgspec.structs.replace(page, runs=found, next_cursor=more.next_cursor)
    return page


def _print_page(page: RunPage, output: Output, is_filtered: bool) -> None:
    output.table(runs_table(page.runs, datetime.now(UTC)))
    cursor = page.next_cursor
    if page.runs and cursor:
        about = "about " if page.total.relation == "estimate" else ""
        shown = f"{len(page.runs)} of {about}{number(page.total.value)} runs"
        say(f"{shown}; continue with: --cursor {cursor}")
    elif cursor:
        say(f"no matches among the newest runs; search older ones: --cursor {cursor}")
    elif not page.runs and is_filtered:
        say("no runs match these filters; without filters `runfold runs` lists all")
    elif not page.runs:
        say("no runs; record one with `runfold exec -- COMMAND`")


@command(
    option("run", metavar="RUN", help="the run's id, as listed by `runfold runs`"),
    one_of(
        option("--events", action="store_true", help="print the run's events instead"),
        option("--logs", action="store_true", help="print the run's complete output instead"),
    ),
    option(
        "--tail",
        type=whole_number(1, 1_000_000),
        metavar="N",
        help=f"only the last N lines of output, or events (default for the summary: {_TAIL_LINES})",
    ),
    option("--node", type=name, help="with --logs: only the output of this node"),
    JSON,
)
def show(arguments: Namespace, context: Context) -> None:
    """examples:
      runfold show RUN                    summary, error, nodes, payloads, end of the output
      runfold show RUN --logs             the complete output, unchanged
      runfold show RUN --logs --tail 100  the last 100 lines of output
      runfold show RUN --logs --node N    the output of one node
      runfold show RUN --events           the events, one per line
      runfold show RUN --json

    With RUNFOLD_ARCHIVE, archived runs and payloads are shown, too.
    """
    output, run, tail = context.output, arguments.run, arguments.tail
    if arguments.node is not None and not arguments.logs:
        raise CommandFailed("--node: is for --logs", USAGE)
    with open_history(context.settings) as history:
        details = history.run(run)
        if details is None:
            raise CommandFailed(f"there is no run {plain(run)!r}: `runfold runs` lists them")
        if arguments.events:
            print_events(history, run, output, tail=tail)
        elif arguments.logs:
            print_output(history, run, output, node=arguments.node, tail=tail)
        elif output.is_json:
            output.json(details)
        else:
            print_run(details, output, now=datetime.now(UTC))
            print_end(history, run, output, tail=tail or _TAIL_LINES)


@command(
    option("--format", help=f"one of: {', '.join(FORMATS)}"),
    option("-o", "--output", type=Path, metavar="FILE", help="default: stdout"),
    option("--nodes", action="store_true", help="include the attempts at nodes"),
    RUN_FILTERS,
)
def export(arguments: Namespace, context: Context) -> None:
    """examples:
      runfold export --status failed --since 30d -o failed.csv
      runfold export --nodes -o history.parquet
      runfold export --format ndjson --project acme | jq -c 'select(.usage.cost_usd > 1)'

    Without --format, the file's extension decides. With --nodes, CSV and Parquet have a row for
    each attempt at a node, and NDJSON has the attempts as `node_list`. The output is written to
    FILE.part, which is renamed to FILE when it is complete.
    """
    path = arguments.output
    export_format = arguments.format or ("" if path is None else path.suffix.removeprefix("."))
    if not arguments.format and export_format not in FORMATS:
        raise CommandFailed(f"name a format: --format {'|'.join(FORMATS)}", USAGE)
    if export_format == "parquet" and path is None and sys.stdout.isatty():
        raise CommandFailed("parquet is binary: name a file with -o", USAGE)
    filters = filters_of(arguments)
    with open_history(context.settings) as history:
        total = history.runs(**filters, limit=1).total.value
        done = 0
        with progress_bar("exporting", total) as show, _opened(path) as file:

            def on_progress(count: int) -> None:
                nonlocal done
                done += count
                show(done, "exporting")

            parameters = {"nodes": arguments.nodes, "on_progress": on_progress, **filters}
            file.writelines(history.export(export_format, **parameters))


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[bytes]]:
    if path is None:
        yield sys.stdout.buffer
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@command(
    option("runs", nargs="*", metavar="RUN", help="the ids of the runs"),
    RUN_FILTERS,
    option("--older-than", type=whole_number(1, MAX_DAYS), metavar="DAYS", help=_OLDER),
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
        message = "--dry-run: works only with filters; `runfold show RUN` shows one run"
        raise CommandFailed(message, USAGE)
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
