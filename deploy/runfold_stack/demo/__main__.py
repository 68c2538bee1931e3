"""`python -m runfold_stack.demo`: Runfold in a minute, on a stack of its own that it removes.

It records real work on this machine: Runfold's own checks in a checkout, else some of Python's
programs. Then it shows the history with the real commands.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.request import ProxyHandler, build_opener

import msgspec

from runfold import Recorder
from runfold_stack.exit_codes import FAILED, INTERRUPTED, OK
from runfold_stack.settings import VARIABLES
from runfold_storage.history import History

from .workload import fail_to_import_prices, run_checks

_FOLDED_S: Final = 30.0
_ENDED: Final = ("completed", "failed", "cancelled")
_RUNFOLD: Final = (sys.executable, "-P", "-m", "runfold_stack.cli")


def main() -> int:
    """Run the demo; return the exit code."""
    began = time.monotonic()
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # so that SIGTERM stops the stack, too
    folder = Path(tempfile.mkdtemp(prefix="runfold-demo-"))
    folder.chmod(0o755)  # root's servers run as another user and must enter it
    environ = _environ(os.environ, folder)
    try:
        with _stack(environ, folder) as stack:
            _show(stack, environ)
    except KeyboardInterrupt:
        return INTERRUPTED
    except _DemoFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return FAILED
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _head(f"Everything is stopped and removed, after {time.monotonic() - began:.0f} s")
    print("Now record your own work, and keep the data:\n")
    program = os.path.relpath(Path(sys.executable).with_name("runfold"))
    print(f"    {program} up")
    print(f"    {program} exec -- COMMAND          in another terminal")
    return OK


class _DemoFailed(Exception):
    """The demo failed; the message names the step."""


def _show(stack: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    recorder = Recorder(stack["redis_url"])
    _head("A program records runs with the SDK")
    print("    from runfold import Recorder")
    print('    with Recorder().run("checks") as run, run.node("lint") as node: …\n')
    checks = run_checks(recorder)
    failed = fail_to_import_prices(recorder)
    recorder.close()

    _head("Any command can be recorded unchanged")
    words = ["sh", "-c", "uname -sm; df -h . | tail -1; exit 3"]
    _runfold(environ, "exec", "--workflow", "disk-check", "--", *words, expected=3)

    _await_folded(stack["database_url"], 3)
    _head("All runs, newest first")
    _runfold(environ, "runs")
    _head("One run, with its nodes on a timeline")
    _runfold(environ, "show", checks)
    _head("A run that failed, with the reason")
    _runfold(environ, "show", failed)
    _head("Counts, durations, success rates")
    _runfold(environ, "stats")
    _head(f"The same over HTTP, at {stack['api_url']}")
    for path in ("/healthz", "/api/v1/runs?status=failed&limit=1"):
        print(f"$ curl '{stack['api_url']}{path}'")
        print(f"{_fetch(stack['api_url'] + path)}\n")
    _head("A check of every part")
    _runfold(environ, "doctor")


@contextmanager
def _stack(environ: Mapping[str, str], folder: Path) -> Iterator[dict[str, Any]]:
    _head("Starting Redis, PostgreSQL, a worker and the API, in a folder of their own")
    print("$ runfold up", flush=True)
    log_path = folder / "up.log"
    with log_path.open("wb") as log:
        up = subprocess.Popen(
            [*_RUNFOLD, "up", "--port", "0", "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=dict(environ),
            start_new_session=True,  # Ctrl-C reaches only the demo, which stops it
        )
    try:
        assert up.stdout is not None
        line = up.stdout.readline()
        if not line:
            raise _DemoFailed(f"`runfold up` failed:\n{log_path.read_text(errors='replace')}")
        yield msgspec.json.decode(line)
        _head("Stopping all of it, in order")
    finally:
        up.terminate()
        up.wait()
        if up.stdout is not None:
            up.stdout.close()


def _environ(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment without settings that point to a real deployment."""
    others = {name: value for name, value in environ.items() if name not in VARIABLES}
    return {**others, "RUNFOLD_HOME": str(folder)}


def _runfold(environ: Mapping[str, str], *words: str, expected: int = 0) -> None:
    shown = " ".join(f"'{word}'" if " " in word else word for word in words)
    print(f"$ runfold {shown}", flush=True)
    done = subprocess.run([*_RUNFOLD, *words], env=dict(environ), check=False)
    if done.returncode != expected:
        raise _DemoFailed(f"`runfold {shown}` ended with {done.returncode}, not {expected}")
    if expected:
        print(f"(exit code {expected}, the same as the command's)")


def _await_folded(database_url: str, runs: int) -> None:
    deadline = time.monotonic() + _FOLDED_S
    with History(database_url, pool_size=1) as history:
        while sum(run.status in _ENDED for run in history.runs().runs) < runs:
            if time.monotonic() > deadline:
                raise _DemoFailed(f"not all runs could be read after {_FOLDED_S:g} s")
            time.sleep(0.05)


def _fetch(url: str) -> str:
    with build_opener(ProxyHandler({})).open(url, timeout=10) as answer:
        text = answer.read().decode()
    return text if len(text) <= 500 else f"{text[:500]} …"


def _head(text: str) -> None:
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {text}{plain}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
