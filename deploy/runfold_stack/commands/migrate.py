"""`runfold migrate`: migrate the database to this version's schema."""

from argparse import ArgumentParser, Namespace

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import OK, USAGE, CommandFailed
from runfold_storage.migrate import check_schema, current_revision, head, is_known, migrate

from . import Context

EPILOG = """\
examples:
  runfold migrate                     to the newest schema; does nothing if it is up to date
  runfold migrate --check             exit code 1 if a migration is needed
  runfold migrate --to base --yes     drop all of Runfold's tables

`runfold up` migrates by itself. Concurrent migrations wait for each other.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--to", metavar="REV", default="head", help="target revision (default: head)")
    what.add_argument("--check", action="store_true", help="change nothing, only check")
    parser.add_argument("--yes", action="store_true", help="accept the loss of data in a downgrade")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Migrate, or check the revision."""
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
                f"the database is at {before}; migrating to {arguments.to} may drop tables with "
                "their data: confirm with --yes",
                USAGE,
            )
        after = migrate(url, arguments.to)
    if context.output.is_json:
        context.output.json({"before": before, "after": after, "head": head()})
    elif before == after:
        context.output.line(f"the schema is at {after}, up to date")
    else:
        context.output.line(f"migrated the schema from {before or 'empty'} to {after or 'empty'}")
    return OK
