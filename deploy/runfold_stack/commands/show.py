"""`runfold show`: one run, whole."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.text import Text

from runfold_stack.commands import Context
from runfold_stack.outcomes import CommandFailed
from runfold_stack.output import STYLES, Output, cell, make_table, plain
from runfold_stack.run_view import print_run
from runfold_stack.servers import require_database
from runfold_storage.event_pages import MAX_EVENTS
from runfold_storage.history import History

TAIL_LINES: Final = 20
_TAIL_PAGES: Final = 5
"""How much output is read for its last lines; beyond that `--logs` has it."""

_EPILOG = """\
examples:
  runfold show RUN              head, error, nodes, inputs and outputs, end of the output
  runfold show RUN --logs       the whole output, as it was
  runfold show RUN --events     the events, one a line
  runfold show RUN --json

With RUNFOLD_ARCHIVE also runs, and payloads of runs, that retention has put there.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("run", metavar="RUN", help="the run's id, as `runfold runs` shows it")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--events", action="store_true", help="the run's events instead")
    part.add_argument("--logs", action="store_true", help="the run's whole output instead")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Read the run and print what was asked for."""
    output = context.output
    settings = context.settings
    with History(
        require_database(settings), pool_size=1, archive_url=settings.archive_url
    ) as history:
        details = history.run(arguments.run)
        if details is None:
            raise CommandFailed(
                f"there is no run {plain(arguments.run)!r}: `runfold runs` lists them"
            )
        if arguments.events or arguments.logs:
            _print_events(history, arguments.run, output, logs=arguments.logs)
        elif output.is_json:
            output.json(details)
        else:
            print_run(details, output, now=datetime.now(UTC))
            _print_tail(history, arguments.run, output)
    return 0


def _print_events(history: History, run: str, output: Output, *, logs: bool) -> None:
    if output.is_json:
        output.json({"run": run, "events": list(_events(history, run, logs=logs))})
    elif logs:
        _print_logs(_decoded(history, run, logs=True), output)
    else:
        for event in _decoded(history, run, logs=False):
            rest = {k: v for k, v in event.items() if k not in ("type", "run", "id", "at", "v")}
            fields = plain(msgspec.json.encode(rest).decode()) if rest else ""
            output.line(f"{event['at']}  {event['type']:<13} {fields}".rstrip())


def _print_logs(events: Iterator[dict[str, Any]], output: Output) -> None:
    """What a stream carried as it was, cut anywhere; whatever else was logged, a line each."""
    is_line_open = False
    for event in events:
        text = str(event.get("text", ""))
        if event.get("stream") not in ("stdout", "stderr"):
            text = ("\n" if is_line_open else "") + text + ("" if text.endswith("\n") else "\n")
        output.text(text)
        is_line_open = not text.endswith("\n")


def _print_tail(history: History, run: str, output: Output) -> None:
    """The last lines of the output, each with its stream and node."""
    lines: list[tuple[str, str, str]] = []
    after = None
    for _ in range(_TAIL_PAGES):
        page = history.logs(run, after=after, limit=MAX_EVENTS)
        if page is None:
            return
        for raw in page.events:
            event = msgspec.json.decode(raw)
            where = event.get("node") or ""
            stream = event.get("stream", "log")
            lines += [(stream, where, line) for line in event["text"].splitlines()]
            del lines[:-TAIL_LINES]
        after = page.next_cursor
        if after is None:
            break
    if not lines:
        return
    output.line()
    which = "output" if after is None else "output (not to its end, which is far)"
    output.line(f"{which}; all of it: runfold show {plain(run)} --logs", "bold")
    table = make_table("STREAM", "NODE", "TEXT")
    table.show_header = False
    for stream, node, line in lines:
        style = STYLES["failed"] if stream == "stderr" else ""
        table.add_row(Text(stream, style or "dim"), cell(node), Text(plain(line)))
    output.table(table)


def _decoded(history: History, run: str, *, logs: bool) -> Iterator[dict[str, Any]]:
    for raw in _events(history, run, logs=logs):
        yield msgspec.json.decode(raw)


def _events(history: History, run: str, *, logs: bool) -> Iterator[msgspec.Raw]:
    after = None
    while True:
        if logs:
            page = history.logs(run, after=after, limit=MAX_EVENTS)
        else:
            page = history.events(run, after=after, limit=MAX_EVENTS)
        if page is None:
            return
        yield from page.events
        after = page.next_cursor
        if after is None:
            return
