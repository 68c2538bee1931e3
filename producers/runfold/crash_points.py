"""Points at which a test can kill this process: `RUNFOLD_CRASH_AT=<point>`.

The variable is read once, at import; without it a point is a call that does nothing. The process
sends itself SIGKILL, so that nothing is cleaned up, as in a crash.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

POINTS: Final = (
    "before_send",
    "after_send",
    "after_acknowledge",
    "before_segment_create",
    "before_segment_publish",
    "before_spool_write",
    "in_spool_write",
    "after_spool_write",
    "before_spool_sync",
    "after_spool_sync",
    "before_segment_progress",
    "after_segment_progress",
    "before_segment_delete",
    "after_segment_delete",
    "before_segment_adopt",
    "before_tail_cut",
)

_CRASH_AT: Final = os.environ.get("RUNFOLD_CRASH_AT", "")


def _pass(name: str, last: Callable[[], object] | None = None) -> None:
    """Do nothing, outside of crash tests."""


def _crash(name: str, last: Callable[[], object] | None = None) -> None:
    if name == _CRASH_AT:
        if last is not None:
            last()
        os.kill(os.getpid(), signal.SIGKILL)


crash_point: Final = _crash if _CRASH_AT else _pass
"""`crash_point(name, last)`: `last` runs just before the kill, to leave something half done."""
