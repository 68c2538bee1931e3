"""Draw a live view in a terminal, at most ten times a second.

A thread reads the stream into a bounded queue. If the terminal is slower than the changes, the full
queue delays the connection, and then the API sends only the newest state of each run.
"""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from queue import Empty, Queue
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live

from .sse_client import Connected, Disconnected, StreamSignal
from .state import ListState, RunState

REDRAW_S: Final = 0.1
TICK_S: Final = 0.5
"""How often durations are updated while no event arrives."""
_MOST_WAITING: Final = 1000


def draw(
    signals: Iterator[StreamSignal],
    api: str,
    watched: ListState | RunState,
    console: Console,
    render: Callable[[str | None], RenderableType],
) -> None:
    """Draw the state until it has ended; `render` takes the problem of the connection, if any."""
    waiting: Queue[StreamSignal | Exception] = Queue(_MOST_WAITING)
    threading.Thread(target=_read, args=(signals, waiting), daemon=True).start()
    problem: str | None = f"connecting to {api}"
    with Live(
        render(problem), console=console, auto_refresh=False, vertical_overflow="crop"
    ) as live:
        is_over = False
        while not is_over:
            for signal in _take(waiting):
                match signal:
                    case Exception():
                        raise signal
                    case Disconnected():
                        problem = f"{api} is unavailable: {signal.reason}"
                    case Connected():
                        problem = None
                    case _:
                        watched.apply(signal, datetime.now(UTC))
                is_over = watched.has_ended
                if is_over:
                    break
            live.update(render(problem), refresh=True)
            if not is_over:
                time.sleep(REDRAW_S)


def _take(waiting: "Queue[StreamSignal | Exception]") -> Iterator[StreamSignal | Exception]:
    try:
        yield waiting.get(timeout=TICK_S)
        for _ in range(_MOST_WAITING):
            yield waiting.get_nowait()
    except Empty:
        return


def _read(signals: Iterator[StreamSignal], waiting: "Queue[StreamSignal | Exception]") -> None:
    try:
        for signal in signals:
            waiting.put(signal)
    except Exception as error:
        waiting.put(error)
