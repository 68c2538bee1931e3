"""`runfold export`: write any number of runs to a file."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import OK, USAGE, CommandFailed
from runfold_stack.options.run_filters import add_filters, filters_of
from runfold_stack.terminal.progress import progress_bar
from runfold_storage.history import History
from runfold_storage.queries.runs.export_formats import FORMATS

from . import Context

EPILOG = """\
examples:
  runfold export --status failed --since 30d -o failed.csv
  runfold export --nodes -o history.parquet
  runfold export --format ndjson --project acme | jq -c 'select(.usage.cost_usd > 1)'

Without --format, the file's extension decides. With --nodes, CSV and Parquet have a row for each
attempt at a node, and NDJSON has the attempts as `node_list`. The output is written to FILE.part,
which is renamed to FILE when it is complete.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--format", help=f"one of: {', '.join(FORMATS)}")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: stdout")
    parser.add_argument("--nodes", action="store_true", help="include the attempts at nodes")
    add_filters(parser)


def run(arguments: Namespace, context: Context) -> int:
    """Stream the export to the output in bounded memory."""
    export_format = arguments.format or _format_of(arguments.output)
    if export_format == "parquet" and arguments.output is None and sys.stdout.isatty():
        raise CommandFailed("parquet is binary: name a file with -o", USAGE)
    filters = filters_of(arguments, datetime.now(UTC))
    with History(require_database(context.settings), pool_size=1) as history:
        total = history.runs(**filters, limit=1).total.value
        done = 0
        with progress_bar("exporting", total) as show, _opened(arguments.output) as file:

            def on_progress(count: int) -> None:
                nonlocal done
                done += count
                show(done, "exporting")

            chunks = history.export(
                export_format, nodes=arguments.nodes, on_progress=on_progress, **filters
            )
            for chunk in chunks:
                file.write(chunk)
    return OK


def _format_of(output: Path | None) -> str:
    extension = "" if output is None else output.suffix.removeprefix(".")
    if extension not in FORMATS:
        raise CommandFailed(f"name a format: --format {'|'.join(FORMATS)}", USAGE)
    return extension


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[bytes]]:
    if output is None:
        yield sys.stdout.buffer
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
