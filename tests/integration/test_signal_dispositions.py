"""Signals reach the processes of tests, also where the shell has the test run ignore them."""

import os
import subprocess
import sys
from pathlib import Path

PRINT_IGNORED = """
import signal
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        print(number.name)
"""


def test_a_process_that_a_test_starts_ignores_no_signal() -> None:
    """Whatever the test run itself ignores."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_IGNORED], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_test_run_that_ignores_signals_does_not_pass_that_on() -> None:
    """The test above, in a test run that was started as `nohup make test &` starts one."""
    name = test_a_process_that_a_test_starts_ignores_no_signal.__name__
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [
            *("sh", "-c", "trap '' INT HUP QUIT; exec \"$@\"", "sh"),
            *command,
            f"{Path(__file__)}::{name}",
        ],
        # The plugins, which that test does not need, take most of the time.
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
