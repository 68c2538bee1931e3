"""Points at which a test can kill this process: `RUNFOLD_CRASH_AT=<point>`.

The variable is read once, at import; without it a point is a call that does nothing. The process
sends itself SIGKILL, so that nothing is cleaned up, as in a crash. Tests find the points by the
calls of `crash_point`, so each names its point as a literal.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

_CRASH_AT: Final = os.environ.get("RUNFOLD_CRASH_AT", "")


def crash_point(name: str, last: Callable[[], object] | None = None) -> None:
    """Kill this process if it is to die here, after `last` has left something half done."""
    if name == _CRASH_AT:
        if last is not None:
            last()
        os.kill(os.getpid(), signal.SIGKILL)
