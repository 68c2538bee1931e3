"""`runfold search`: choose the projects with searchable payloads; show the index's state."""

from argparse import Namespace
from collections.abc import Sequence

from runfold_stack.endpoints import open_database
from runfold_stack.errors import USAGE, CommandFailed
from runfold_stack.options import JSON, name, option
from runfold_stack.terminal.output import Output, cell, say
from runfold_stack.terminal.tables import Table
from runfold_storage.search.indexer import IndexState, create_indexes, read_state, restart_scan
from runfold_storage.search.projects import (
    SearchedProject,
    disable_payload_search,
    enable_payload_search,
    read_projects,
)

from . import Context, command


@command(
    option("what", choices=("show", "set", "rebuild"), help="what to do"),
    option("--project", type=name, help="set: the project"),
    option("--payloads", choices=("on", "off"), help="set: index inputs and outputs"),
    JSON,
)
def search(arguments: Namespace, context: Context) -> None:
    """examples:
      runfold search show
      runfold search set --project acme --payloads on
      runfold search set --project acme --payloads off
      runfold search rebuild
      runfold runs --project acme --payload order-4711

    `runfold runs --search` searches the workflow, id, tags and errors of all runs. `--payload`
    searches inputs and outputs, for projects that have this switched on: the first 4096 characters
    of each run that has ended. A job worker maintains the index, shortly behind the fold. Switching
    payloads on indexes existing runs, newest first; switching them off removes them. `rebuild`
    compares every run with the index again, and creates the index if PostgreSQL had no pg_trgm when
    the schema was made.
    """
    given = (arguments.project, arguments.payloads)
    if arguments.what == "set" and None in given:
        raise CommandFailed("set needs --project and --payloads on or off", USAGE)
    if arguments.what != "set" and given != (None, None):
        raise CommandFailed("--project and --payloads are for set", USAGE)
    with open_database(context.settings) as connection:
        if arguments.what == "rebuild":
            create_indexes(connection)
            restart_scan(connection)
        elif arguments.payloads == "on":
            enable_payload_search(connection, arguments.project)
        elif arguments.payloads == "off" and not disable_payload_search(
            connection, arguments.project
        ):
            raise CommandFailed(f"payloads of {arguments.project} are not indexed")
        state, projects = read_state(connection), read_projects(connection)
    output = context.output
    output.result({"index": state, "projects": projects}, lambda: _print(state, projects, output))


def _print(state: IndexState, projects: Sequence[SearchedProject], output: Output) -> None:
    output.line(f"index: {_describe(state)}")
    table = Table("PROJECT", "PAYLOADS", "SINCE")
    for project in projects:
        table.add_row(
            cell(project.project),
            "indexed" if project.wanted else "being removed",
            "the beginning"
            if project.since is None
            else f"{project.since:%Y-%m-%d %H:%M} UTC so far",
        )
    output.table(table)
    if not projects:
        say("no project has searchable payloads: `runfold search set` switches them on")


def _describe(state: IndexState) -> str:
    if not state.has_trigrams:
        return "none, as PostgreSQL had no pg_trgm: searches scan the runs"
    if state.reading_shards:
        return (
            f"scanning runs on {state.reading_shards} of {state.shards} shards,"
            f" {state.behind:,} changes behind"
        )
    return f"{state.behind:,} changes behind" if state.behind else "up to date"
