"""`runfold watch`: runs as they change."""

import functools
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from msgspec import Raw
from rich.console import RenderableType

from runfold_stack.endpoints import api_address
from runfold_stack.exit_codes import FAILED, OK, USAGE, CommandFailed
from runfold_stack.options.run_filters import add_filters, filters_of
from runfold_stack.options.values import whole_number
from runfold_stack.processes.signals import sigterm_as_interrupt
from runfold_stack.terminal.output import Output, plain, say
from runfold_stack.watch.display import draw
from runfold_stack.watch.line_output import news_lines, run_line
from runfold_stack.watch.list_state import ListState
from runfold_stack.watch.run_state import RunState
from runfold_stack.watch.screens import list_screen, run_screen
from runfold_stack.watch.sse_client import Connected, Disconnected, Received, StreamSignal, follow
from runfold_storage.parameters import MAX_LIMIT

from . import Context

_EPILOG = """\
examples:
  runfold watch                            all runs, the newest on top, until Ctrl-C
  runfold watch --project acme --status failed
  runfold watch RUN                        one run with nodes and output, until it has ended
  runfold watch RUN --wait && ./deploy.sh  ends with 0 if the run completed, else with 1
  runfold watch --json | jq -c 'select(.event == "changed") | .data.id'

In a terminal it is a picture, elsewhere a line a change. What happens while the API is away is
told when it is back. With --json each event of the API's stream is an object on a line of its own.
"""
_LIMIT: Final = 50


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("run", metavar="RUN", nargs="?", help="one run; without it, a list of runs")
    add_filters(parser)
    parser.add_argument(
        "--limit",
        type=whole_number(1, MAX_LIMIT),
        help=f"so many runs of a list ({_LIMIT}; up to {MAX_LIMIT})",
    )
    parser.add_argument("--wait", action="store_true", help="wait until the run is there")
    parser.add_argument("--json", action="store_true", help="print an object a line")


def run(arguments: Namespace, context: Context) -> int:
    """Watch until it is over, or until Ctrl-C."""
    now = datetime.now(UTC)
    filters = filters_of(arguments, now)
    api = api_address(context.settings)
    with sigterm_as_interrupt():
        if arguments.run is None:
            if arguments.wait:
                raise CommandFailed("--wait: only for one run", USAGE)
            limit = arguments.limit or _LIMIT
            _watch_list(api, filters, limit, context.output)
            return OK
        if filters or arguments.limit is not None:
            raise CommandFailed("filters are for lists: leave them out, or RUN", USAGE)
        return _watch_run(api, arguments.run, context.output, waits=arguments.wait)


def _watch_list(api: str, filters: dict[str, Any], limit: int, output: Output) -> None:
    query = urlencode(
        {name: _text(value) for name, value in filters.items()} | {"limit": limit}, True
    )
    happenings = follow(f"{api}/api/v1/live?{query}")
    watched = ListState(limit)
    if output.is_json:
        _print_json(happenings, output, lambda _: False)
        return
    if not _is_drawable(output):
        for received in _received(happenings):
            for changed in watched.apply(received, _now()):
                output.line_now(run_line(changed, _now()))
        return
    shown = ", ".join(f"{name} {_text(value)}" for name, value in filters.items())
    picture = _Picture(f"runs  {shown}".rstrip(), api)

    def take(received: Received) -> bool:
        watched.apply(received, _now())
        return False

    picture.show(
        happenings,
        output,
        take,
        lambda title, trouble: list_screen(watched, title, trouble, output, _now()),
    )


def _watch_run(api: str, run: str, output: Output, *, waits: bool) -> int:
    happenings = follow(f"{api}/api/v1/runs/{quote(run, safe='')}/live", waits=waits)
    watched = RunState()
    if output.is_json:

        def is_over(received: Received) -> bool:
            watched.apply(received)
            return watched.has_ended

        _print_json(happenings, output, is_over)
    elif not _is_drawable(output):
        for received in _received(happenings):
            for line in news_lines(watched.apply(received), _now()):
                output.line_now(line)
            if watched.has_ended:
                break
    else:

        def take(received: Received) -> bool:
            watched.apply(received)
            return watched.has_ended

        _Picture(f"run {plain(run)}", api).show(
            happenings,
            output,
            take,
            lambda title, trouble: run_screen(watched, title, trouble, output, _now()),
        )
    if watched.is_deleted:
        say(f"run {plain(run)} was deleted")
    return OK if watched.run is not None and watched.run.status == "completed" else FAILED


class _Picture:
    """A screen, and whether the API is there."""

    def __init__(self, title: str, api: str) -> None:
        self._title = title
        self._trouble: str | None = f"connecting to {api}"
        self._api = api

    def show(
        self,
        happenings: Iterator[StreamSignal],
        output: Output,
        take: Callable[[Received], bool],
        render: Callable[[str, str | None], RenderableType],
    ) -> None:
        """Until `take` says that it was the last event."""
        draw(
            happenings,
            output.console,
            functools.partial(self._take, take),
            lambda: render(self._title, self._trouble),
        )

    def _take(self, take: Callable[[Received], bool], happening: StreamSignal) -> bool:
        match happening:
            case Disconnected():
                self._trouble = f"{self._api} is away: {happening.reason}"
            case Connected():
                self._trouble = None
            case Received():
                return take(happening)
        return False


def _received(happenings: Iterator[StreamSignal]) -> Iterator[Received]:
    """The events; that the API is away is said once, until it is back."""
    is_away = False
    for happening in happenings:
        if isinstance(happening, Received):
            yield happening
        elif isinstance(happening, Disconnected) and not is_away:
            say(f"the API is away, waiting for it: {happening.reason}")
        is_away = isinstance(happening, Disconnected)


def _print_json(
    happenings: Iterator[StreamSignal], output: Output, is_over: Callable[[Received], bool]
) -> None:
    for received in _received(happenings):
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
