"""`runfold migrate`: bring the database to this version's schema."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import OK, USAGE, CommandFailed
from runfold_storage.migrate import check_schema, current_revision, head, is_known, migrate

from . import Context

_EPILOG = """\
examples:
  runfold migrate                     to the newest schema; changes nothing if it is there already
  runfold migrate --check             exit code 1 if there is something to do
  runfold migrate --to base --yes     drop all of Runfold's tables

`runfold up` does this by itself. Several at once wait for each other.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--to", metavar="REV", default="head", help="this revision (default: head)")
    what.add_argument("--check", action="store_true", help="change nothing, only look")
    parser.add_argument("--yes", action="store_true", help="data may be lost, going back")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Migrate, or look."""
    url = require_database(context.settings)
    before = current_revision(url)
    if arguments.check:
        check_schema(url)
        after = before
    else:
        if not is_known(arguments.to):
            raise CommandFailed(
                f"--to {arguments.to}: there is no such revision; the newest is {head()}", USAGE
            )
        if arguments.to != "head" and before is not None and not arguments.yes:
            raise CommandFailed(
                f"the database is at {before}; going to {arguments.to} may drop tables and "
                "their data: add --yes if that is what you want",
                USAGE,
            )
        after = migrate(url, arguments.to)
    if context.output.is_json:
        context.output.json({"before": before, "after": after, "head": head()})
    elif before == after:
        context.output.line(f"the schema is at {after}: nothing to do")
    else:
        context.output.line(f"the schema was {before or 'empty'} and is {after or 'empty'} now")
    return OK
