"""Print a run's events and output, completely or the end, for `runfold show`."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Raw
from rich.text import Text

from runfold_storage.history import History
from runfold_storage.queries.run.events import MAX_EVENTS

from .output import STYLES, Output, cell, plain
from .tables import Table

_ENVELOPE: Final = ("type", "run", "id", "at", "v")
_STREAMS: Final = ("stdout", "stderr")


def print_events(history: History, run: str, output: Output, *, tail: int | None) -> None:
    """Print one event per line; with `tail` only the last ones."""
    found = _events(history, run) if tail is None else _last_events(history, run, tail)[-tail:]
    if output.is_json:
        output.json({"run": run, "events": list(found)})
        return
    for raw in found:
        event = msgspec.json.decode(raw)
        rest = {name: value for name, value in event.items() if name not in _ENVELOPE}
        fields = plain(msgspec.json.encode(rest).decode()) if rest else ""
        output.line(f"{event['at']}  {event['type']:<13} {fields}".rstrip())


def print_output(
    history: History, run: str, output: Output, *, node: str | None, tail: int | None
) -> None:
    """Print the output unchanged; with `tail` only the last lines. As JSON, print its events."""
    filters = {"types": "logged", "node": node}
    found: Iterable[Raw]
    if tail is None:
        found = _events(history, run, **filters)
    else:
        found = _last_events(history, run, tail, **filters)
    if output.is_json:
        output.json({"run": run, "events": list(found)})
        return
    pieces = _pieces(map(msgspec.json.decode, found))
    for piece in pieces if tail is None else [last_lines("".join(pieces), tail)]:
        output.text(piece)


def print_end(history: History, run: str, output: Output, *, tail: int) -> None:
    """Print the last lines of the output with a heading, and with the stream and node of each."""
    lines = [
        (event.get("stream", "log"), event.get("node") or "", line)
        for event in map(msgspec.json.decode, _last_events(history, run, tail, types="logged"))
        for line in event["text"].splitlines()
    ][-tail:]
    if not lines:
        return
    output.line()
    output.line(f"output (complete: runfold show {plain(run)} --logs)", "bold")
    table = Table("STREAM", "NODE", "TEXT", has_header=False)
    for stream, node, line in lines:
        style = STYLES["failed"] if stream == "stderr" else "dim"
        table.add_row(Text(stream, style), cell(node), plain(line))
    output.table(table)


def last_lines(text: str, n: int) -> str:
    start = len(text) - text.endswith("\n")
    for _ in range(n):
        start = text.rfind("\n", 0, start)
        if start < 0:
            return text
    return text[start + 1 :]


def _pieces(events: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the text of streams unchanged, and other log messages on lines of their own."""
    is_line_open = False
    for event in events:
        text = str(event.get("text", ""))
        if event.get("stream") not in _STREAMS:
            text = ("\n" if is_line_open else "") + text + ("" if text.endswith("\n") else "\n")
        yield text
        is_line_open = not text.endswith("\n")


def _events(history: History, run: str, **filters: Any) -> Iterator[Raw]:
    page = history.events(run, limit=MAX_EVENTS, **filters)
    while page is not None:
        yield from page.events
        if page.next_cursor is None:
            return
        page = history.events(run, after=page.next_cursor, limit=MAX_EVENTS, **filters)


def _last_events(history: History, run: str, wanted: int, **filters: Any) -> list[Raw]:
    """Return the last `wanted` events at least, or lines of output if filtered by type."""
    found: list[Raw] = []
    page = history.events(run, tail=True, limit=MAX_EVENTS, **filters)
    while page is not None:
        found = page.events + found
        if "types" in filters:
            for event in map(msgspec.json.decode, page.events):
                wanted -= event["text"].count("\n") + (event.get("stream") not in _STREAMS)
        else:
            wanted -= len(page.events)
        if wanted < 0 or page.prev_cursor is None:
            break
        page = history.events(run, before=page.prev_cursor, limit=MAX_EVENTS, **filters)
    return found
