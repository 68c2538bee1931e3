"""Points at which a test can have the process killed."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from runfold import crash_points


def test_every_point_is_listed_and_exists() -> None:
    """A test that goes through the list goes through the code."""
    folder = Path(crash_points.__file__).parent
    source = "".join(
        path.read_text() for path in folder.rglob("*.py") if path.name != "crash_points.py"
    )
    assert sorted(re.findall(r'crash_point\(\s*"(\w+)"', source)) == sorted(crash_points.POINTS)


def test_without_the_variable_nothing_happens() -> None:
    """In production a point is an empty function."""
    for point in crash_points.POINTS:
        crash_points.crash_point(point)


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
