"""`runfold search`: whose inputs and outputs are searched, and how far the index has come."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

import psycopg

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import OK, USAGE, CommandFailed
from runfold_stack.options.values import name
from runfold_stack.terminal.output import Output, cell, make_table
from runfold_storage.migrate import check_schema
from runfold_storage.postgres.connections import connect
from runfold_storage.search.indexer import IndexState, begin_again, make_indexes, read_state
from runfold_storage.search.projects import forget_payloads_of, read_projects, search_payloads_of

from . import Context

_EPILOG = """\
examples:
  runfold search show
  runfold search set --project acme --payloads on
  runfold search set --project acme --payloads off
  runfold search rebuild
  runfold runs --project acme --payload order-4711

Workflow, id, tags and errors of all runs are searched by `runfold runs --search`. Inputs and
outputs are searched by `--payload`, for the projects that have it switched on: the first 4096
characters of each run that has ended. A worker for jobs keeps the index, some moments behind the
fold. Switched on, the runs that are there are put in, newest first; switched off, they are taken
out. `rebuild` compares every run with the index once more, and makes the index where PostgreSQL had
no pg_trgm when the schema was made.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("what", choices=("show", "set", "rebuild"), help="what to do")
    parser.add_argument("--project", type=name, help="set: the project")
    parser.add_argument("--payloads", choices=("on", "off"), help="set: search inputs and outputs")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Show, set, or begin again."""
    given = (arguments.project, arguments.payloads)
    if arguments.what == "set" and None in given:
        raise CommandFailed("set needs --project and --payloads on or off", USAGE)
    if arguments.what != "set" and given != (None, None):
        raise CommandFailed("--project and --payloads go with set", USAGE)
    url = require_database(context.settings)
    check_schema(url)
    with connect(url, autocommit=True) as connection:
        if arguments.what == "rebuild":
            make_indexes(connection)
            begin_again(connection)
        elif arguments.payloads == "on":
            search_payloads_of(connection, arguments.project)
        elif arguments.payloads == "off" and not forget_payloads_of(connection, arguments.project):
            raise CommandFailed(f"payloads of {arguments.project} are not searched")
        return _show(connection, context.output)


def _show(connection: psycopg.Connection, output: Output) -> int:
    state, projects = read_state(connection), read_projects(connection)
    if output.is_json:
        output.json({"index": state, "projects": projects})
        return OK
    output.line(f"index: {_words(state)}")
    table = make_table("PROJECT", "PAYLOADS", "SINCE")
    for project in projects:
        table.add_row(
            cell(project.project),
            "searched" if project.wanted else "being taken out",
            "the beginning"
            if project.since is None
            else f"{project.since:%Y-%m-%d %H:%M} UTC, going back",
        )
    output.table(table)
    if not projects:
        output.note("no project has its payloads searched: `runfold search set` switches it on")
    return OK


def _words(state: IndexState) -> str:
    if not state.has_trigrams:
        return "PostgreSQL had no pg_trgm, texts are searched for by walking through runs"
    if state.reading_shards:
        return (
            f"runs are being read through on {state.reading_shards} of {state.shards} shards,"
            f" {state.behind:,} changes behind"
        )
    return f"{state.behind:,} changes behind" if state.behind else "all that is folded is in it"
