"""Draw a live view in a terminal, at most ten times a second.

A thread reads the stream into a bounded queue. If the terminal is slower than the changes, the full
queue delays the connection, and then the API sends only the newest state of each run.
"""

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, Queue
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live

from .sse_client import StreamSignal

REDRAW_S: Final = 0.1
TICK_S: Final = 0.5
"""How often durations are updated while no event arrives."""
_MOST_WAITING: Final = 1000


def draw(
    signals: Iterator[StreamSignal],
    console: Console,
    take: Callable[[StreamSignal], bool],
    render: Callable[[], RenderableType],
) -> None:
    """Draw what `render` returns until `take` returns True for the last signal."""
    waiting: Queue[StreamSignal | Exception] = Queue(_MOST_WAITING)
    threading.Thread(target=_read, args=(signals, waiting), daemon=True).start()
    with Live(render(), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        is_over = False
        while not is_over:
            is_over = _take_all(waiting, take)
            live.update(render(), refresh=True)
            if not is_over:
                time.sleep(REDRAW_S)


def _take_all(
    waiting: "Queue[StreamSignal | Exception]", take: Callable[[StreamSignal], bool]
) -> bool:
    timeout_s: float | None = TICK_S
    for _ in range(_MOST_WAITING):
        try:
            signal = waiting.get(timeout=timeout_s) if timeout_s else waiting.get_nowait()
        except Empty:
            break
        timeout_s = None
        if isinstance(signal, Exception):
            raise signal
        if take(signal):
            return True
    return False


def _read(signals: Iterator[StreamSignal], waiting: "Queue[StreamSignal | Exception]") -> None:
    try:
        for signal in signals:
            waiting.put(signal)
    except Exception as error:
        waiting.put(error)
