"""`runfold watch`: show runs live, in a terminal, as lines or as JSON."""

import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from msgspec import Raw
from rich.console import Console, RenderableType
from rich.live import Live

from runfold_stack.errors import FAILED, OK, USAGE, CommandFailed
from runfold_stack.options import RUN_FILTERS, filters_of, option, whole_number
from runfold_stack.processes.signals import sigterm_as_interrupt
from runfold_stack.processes.up_lock import api_address
from runfold_stack.terminal.output import Output, plain, say
from runfold_stack.watch.screens import change_lines, list_screen, run_screen
from runfold_stack.watch.sse_client import Connected, Disconnected, Received, StreamSignal, follow
from runfold_stack.watch.state import ListState, RunState
from runfold_storage.parameters import MAX_LIMIT

from . import Context, command

_LIMIT: Final = 50
_REDRAWS_PER_S: Final = 5


@command(
    option("run", metavar="RUN", nargs="?", help="the run to show; without it, a list of runs"),
    RUN_FILTERS,
    option(
        "--limit",
        type=whole_number(1, MAX_LIMIT),
        help=f"maximum number of runs in the list ({_LIMIT}; up to {MAX_LIMIT})",
    ),
    option("--wait", action="store_true", help="wait until the run exists"),
    option("--json", action="store_true", help="print one JSON object per line"),
)
def watch(arguments: Namespace, context: Context) -> int:
    """examples:
      runfold watch                            all runs, newest first, until Ctrl-C
      runfold watch --project acme --status failed
      runfold watch RUN                        one run with nodes and output, until it ends
      runfold watch RUN --wait && ./deploy.sh  exit code 0 if the run completed, else 1
      runfold watch --json | jq -c 'select(.event == "changed") | .data.id'

    A terminal shows a live view; files and pipes get one line per change. After an outage of the
    API, missed changes are shown. With --json, each event of the API's stream is one JSON object on
    a line.
    """
    output, run = context.output, arguments.run
    filters = filters_of(arguments)
    api = api_address(context.settings)
    with sigterm_as_interrupt():
        if run is None:
            if arguments.wait:
                raise CommandFailed("--wait: needs RUN", USAGE)
            limit = arguments.limit or _LIMIT
            query = {name: _text(value) for name, value in filters.items()} | {"limit": limit}
            signals = follow(f"{api}/api/v1/live?{urlencode(query, True)}")
            shown = ", ".join(f"{name} {_text(value)}" for name, value in filters.items())
            _show(signals, ListState(limit), f"runs  {shown}".rstrip(), api, output)
            return OK
        if filters or arguments.limit is not None:
            raise CommandFailed("filters are for lists: omit them or RUN", USAGE)
        url = f"{api}/api/v1/runs/{quote(run, safe='')}/live"
        watched = RunState()
        _show(follow(url, waits=arguments.wait), watched, f"run {plain(run)}", api, output)
    if watched.is_deleted:
        say(f"run {plain(run)} was deleted")
    return OK if watched.run is not None and watched.run.status == "completed" else FAILED


def _show(
    signals: Iterator[StreamSignal],
    watched: ListState | RunState,
    title: str,
    api: str,
    output: Output,
) -> None:
    def render(problem: str | None) -> RenderableType:
        now = datetime.now(UTC)
        if isinstance(watched, RunState):
            return run_screen(watched, title, problem, output, now)
        return list_screen(watched, title, problem, output, now)

    if output.is_terminal and not output.is_json and not output.console.is_dumb_terminal:
        _draw(signals, api, watched, output.console, render)
        return
    for received in _received(signals):
        now = datetime.now(UTC)
        changes = watched.apply(received, now)
        if output.is_json:
            document = {"event": received.event, "id": received.id, "data": Raw(received.data)}
            output.json(document, on_one_line=True)
        else:
            for line in change_lines(changes, now):
                print(line, flush=True)
        if watched.has_ended:
            return


def _draw(
    signals: Iterator[StreamSignal],
    api: str,
    watched: ListState | RunState,
    console: Console,
    render: Callable[[str | None], RenderableType],
) -> None:
    """Draw the state in a terminal, in a thread, so that a slow one does not hold up the stream."""
    lock = threading.Lock()
    problem: str | None = f"connecting to {api}"

    def current() -> RenderableType:
        with lock:
            return render(problem)

    with Live(
        get_renderable=current,
        console=console,
        refresh_per_second=_REDRAWS_PER_S,
        vertical_overflow="crop",
    ):
        for signal in signals:
            with lock:
                match signal:
                    case Disconnected():
                        problem = f"{api} is unavailable: {signal.reason}"
                    case Connected():
                        problem = None
                    case Received():
                        watched.apply(signal, datetime.now(UTC))
            if watched.has_ended:
                return


def _received(signals: Iterator[StreamSignal]) -> Iterator[Received]:
    """Yield the events; report each outage of the API once."""
    is_away = False
    for signal in signals:
        if isinstance(signal, Received):
            yield signal
        elif isinstance(signal, Disconnected) and not is_away:
            say(f"the API is unavailable, waiting for it: {signal.reason}")
        is_away = isinstance(signal, Disconnected)


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(map(_text, value)) if isinstance(value, list | tuple) else value
