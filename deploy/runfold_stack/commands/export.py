"""`runfold export`: a list of any length as a file."""

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from runfold_stack.endpoints import require_database
from runfold_stack.exit_codes import OK, USAGE, CommandFailed
from runfold_stack.options.run_filters import add_filters, filters_of
from runfold_storage.history import History
from runfold_storage.queries.runs.export_formats import FORMATS

from . import Context

_EPILOG = """\
examples:
  runfold export --status failed --since 30d -o failed.csv
  runfold export --nodes -o history.parquet
  runfold export --format ndjson --project acme | jq -c 'select(.usage.cost_usd > 1)'

Without --format the extension tells. With --nodes, CSV and Parquet have a row for each attempt
at a node, and NDJSON has them as `node_list`. A file is there when it is complete: until then it is
called FILE.part.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("--format", help=f"one of: {', '.join(FORMATS)}")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: stdout")
    parser.add_argument("--nodes", action="store_true", help="with the attempts at nodes")
    add_filters(parser)


def run(arguments: Namespace, context: Context) -> int:
    """Write piece after piece, however many there are."""
    wanted = arguments.format or _format_of(arguments.output)
    if wanted == "parquet" and arguments.output is None and sys.stdout.isatty():
        raise CommandFailed("parquet is not for a terminal: name a file with -o", USAGE)
    filters = filters_of(arguments, datetime.now(UTC))
    with History(require_database(context.settings), pool_size=1) as history:
        total = history.runs(**filters, limit=1).total.value
        with _progress(total) as seen, _opened(arguments.output) as file:
            for piece in history.export(wanted, nodes=arguments.nodes, seen=seen, **filters):
                file.write(piece)
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


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    with Progress(
        TextColumn("exporting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr, highlight=False),
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)
