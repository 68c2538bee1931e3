"""`runfold watch`: show runs live, in a terminal, as lines or as JSON."""

import functools
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from msgspec import Raw
from rich.console import RenderableType

from runfold_stack.exit_codes import FAILED, OK, USAGE, CommandFailed
from runfold_stack.options.run_filters import add_filters, filters_of
from runfold_stack.options.values import whole_number
from runfold_stack.processes.signals import sigterm_as_interrupt
from runfold_stack.processes.up_lock import api_address
from runfold_stack.terminal.output import Output, plain, say
from runfold_stack.watch.display import draw
from runfold_stack.watch.line_output import change_lines, run_line
from runfold_stack.watch.screens import list_screen, run_screen
from runfold_stack.watch.sse_client import Connected, Disconnected, Received, StreamSignal, follow
from runfold_stack.watch.state import ListState, RunState
from runfold_storage.parameters import MAX_LIMIT

from . import Context

EPILOG = """\
examples:
  runfold watch                            all runs, newest first, until Ctrl-C
  runfold watch --project acme --status failed
  runfold watch RUN                        one run with nodes and output, until it ends
  runfold watch RUN --wait && ./deploy.sh  exit code 0 if the run completed, else 1
  runfold watch --json | jq -c 'select(.event == "changed") | .data.id'

A terminal shows a live view; files and pipes get one line per change. After an outage of the API,
missed changes are shown. With --json, each event of the API's stream is one JSON object on a line.
"""
_LIMIT: Final = 50


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="the run to show; without it, a list of runs"
    )
    add_filters(parser)
    parser.add_argument(
        "--limit",
        type=whole_number(1, MAX_LIMIT),
        help=f"maximum number of runs in the list ({_LIMIT}; up to {MAX_LIMIT})",
    )
    parser.add_argument("--wait", action="store_true", help="wait until the run exists")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")


def run(arguments: Namespace, context: Context) -> int:
    """Show changes until the run has ended, or until Ctrl-C."""
    now = datetime.now(UTC)
    filters = filters_of(arguments, now)
    api = api_address(context.settings)
    with sigterm_as_interrupt():
        if arguments.run is None:
            if arguments.wait:
                raise CommandFailed("--wait: needs RUN", USAGE)
            limit = arguments.limit or _LIMIT
            _watch_list(api, filters, limit, context.output)
            return OK
        if filters or arguments.limit is not None:
            raise CommandFailed("filters are for lists: omit them or RUN", USAGE)
        return _watch_run(api, arguments.run, context.output, waits=arguments.wait)


def _watch_list(api: str, filters: dict[str, Any], limit: int, output: Output) -> None:
    query = urlencode(
        {name: _text(value) for name, value in filters.items()} | {"limit": limit}, True
    )
    signals = follow(f"{api}/api/v1/live?{query}")
    watched = ListState(limit)
    if output.is_json:
        _print_json(signals, output, lambda _: False)
        return
    if not _is_drawable(output):
        for received in _received(signals):
            for changed in watched.apply(received, _now()):
                output.line_now(run_line(changed, _now()))
        return
    shown = ", ".join(f"{name} {_text(value)}" for name, value in filters.items())
    view = _LiveView(f"runs  {shown}".rstrip(), api)

    def take(received: Received) -> bool:
        watched.apply(received, _now())
        return False

    view.show(
        signals,
        output,
        take,
        lambda title, problem: list_screen(watched, title, problem, output, _now()),
    )


def _watch_run(api: str, run: str, output: Output, *, waits: bool) -> int:
    signals = follow(f"{api}/api/v1/runs/{quote(run, safe='')}/live", waits=waits)
    watched = RunState()
    if output.is_json:

        def is_over(received: Received) -> bool:
            watched.apply(received)
            return watched.has_ended

        _print_json(signals, output, is_over)
    elif not _is_drawable(output):
        for received in _received(signals):
            for line in change_lines(watched.apply(received), _now()):
                output.line_now(line)
            if watched.has_ended:
                break
    else:

        def take(received: Received) -> bool:
            watched.apply(received)
            return watched.has_ended

        _LiveView(f"run {plain(run)}", api).show(
            signals,
            output,
            take,
            lambda title, problem: run_screen(watched, title, problem, output, _now()),
        )
    if watched.is_deleted:
        say(f"run {plain(run)} was deleted")
    return OK if watched.run is not None and watched.run.status == "completed" else FAILED


class _LiveView:
    """A live view with the state of the connection in its title."""

    def __init__(self, title: str, api: str) -> None:
        self._title = title
        self._problem: str | None = f"connecting to {api}"
        self._api = api

    def show(
        self,
        signals: Iterator[StreamSignal],
        output: Output,
        take: Callable[[Received], bool],
        render: Callable[[str, str | None], RenderableType],
    ) -> None:
        """Draw until `take` returns True for the last event."""
        draw(
            signals,
            output.console,
            functools.partial(self._take, take),
            lambda: render(self._title, self._problem),
        )

    def _take(self, take: Callable[[Received], bool], signal: StreamSignal) -> bool:
        match signal:
            case Disconnected():
                self._problem = f"{self._api} is unavailable: {signal.reason}"
            case Connected():
                self._problem = None
            case Received():
                return take(signal)
        return False


def _received(signals: Iterator[StreamSignal]) -> Iterator[Received]:
    """Yield the events; report each outage of the API once."""
    is_away = False
    for signal in signals:
        if isinstance(signal, Received):
            yield signal
        elif isinstance(signal, Disconnected) and not is_away:
            say(f"the API is unavailable, waiting for it: {signal.reason}")
        is_away = isinstance(signal, Disconnected)


def _print_json(
    signals: Iterator[StreamSignal], output: Output, is_over: Callable[[Received], bool]
) -> None:
    for received in _received(signals):
        output.json(
            {"event": received.event, "id": received.id, "data": Raw(received.data)},
            on_one_line=True,
        )
        if is_over(received):
            return


def _is_drawable(output: Output) -> bool:
    return output.is_terminal and not output.console.is_dumb_terminal


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(map(_text, value)) if isinstance(value, list | tuple) else value


def _now() -> datetime:
    return datetime.now(UTC)
