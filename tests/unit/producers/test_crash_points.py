"""Points at which a test can have the process killed."""

import signal
import subprocess
import sys

import pytest

from runfold.crash_points import crash_point


def test_without_the_variable_nothing_happens() -> None:
    """In production a point does nothing."""
    crash_point("before_send", lambda: pytest.fail("a crash"))


def test_the_process_dies_at_the_point_that_was_named() -> None:
    """It dies there and nowhere else, after its last call."""
    script = (
        "from runfold.crash_points import crash_point\n"
        "crash_point('before_send', lambda: print('wrong', flush=True))\n"
        "crash_point('after_send', lambda: print('half', flush=True))\n"
        "print('alive', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"RUNFOLD_CRASH_AT": "after_send"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "half\n")
