"""`make demo`: record real work on a stack of its own, and show the history with the real commands.

It runs some of Python's programs as the nodes of a run. The stack lives in a
temporary folder, which is removed at the end, also after Ctrl-C or SIGTERM.
"""

import json
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
from typing import Any, Final, NamedTuple
from urllib.request import ProxyHandler, build_opener

from runfold import Recorder
from runfold.recording.run import Run
from runfold_storage.history import History

from .errors import FAILED, INTERRUPTED, OK
from .settings import VARIABLES

_FOLDED_S: Final = 30.0
_ENDED: Final = ("completed", "failed", "cancelled")
_RUNFOLD: Final = (sys.executable, "-P", "-m", "runfold_stack.cli")
_HERE: Final = Path(__file__).parent


class Check(NamedTuple):
    """One node: a Python module with its arguments."""

    node: str
    arguments: tuple[str, ...]
    parents: tuple[str, ...] = ()


_CHECKS: Final = (
    Check("platform", ("platform",)),
    Check("compile", ("compileall", "-q", str(_HERE))),
    Check("syntax", ("tabnanny", str(_HERE)), ("platform", "compile")),
    Check("sort", ("timeit", "-n", "20", "sorted(range(100000), key=hash)"), ("platform",)),
    Check(
        "json", ("timeit", "-n", "2000", "-s", "import json", "json.dumps([1] * 500)"), ("sort",)
    ),
)


class _DemoFailed(Exception):
    """The demo failed; the message names the step."""


def main() -> int:
    """Run the demo; return the exit code."""
    began = time.monotonic()
    # SIGTERM stops the stack, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="runfold-demo-"))
    folder.chmod(0o755)  # root's servers run as another user and must enter it
    # Without settings that point to a real deployment.
    environ = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environ["RUNFOLD_HOME"] = str(folder)
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
    program = os.path.relpath(Path(sys.executable).with_name("runfold"))
    print("Now record your own work, and keep the data:\n")
    print(f"    {program} up")
    print(f"    {program} exec -- COMMAND          in another terminal")
    return OK


def _show(stack: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    _head("A program records runs with the SDK")
    print("    from runfold import Recorder")
    print('    with Recorder().run("checks") as run, run.node("sort") as node: …\n')
    with Recorder(stack["redis_url"]) as recorder:
        checks, failed = _run_checks(recorder), _fail_to_import_prices(recorder)
    _head("Any command can be recorded unchanged")
    words = ["sh", "-c", "uname -sm; df -h . | tail -1; exit 3"]
    _runfold(environ, "exec", "--workflow", "disk-check", "--", *words, expected=3)
    _await_folded(stack["database_url"], 3)
    for title, words in (
        ("All runs, newest first", ["runs"]),
        ("One run, with its nodes on a timeline", ["show", checks]),
        ("A run that failed, with the reason", ["show", failed]),
        ("Counts, durations, success rates", ["stats"]),
    ):
        _head(title)
        _runfold(environ, *words)
    _head(f"The same over HTTP, at {stack['api_url']}")
    for path in ("/healthz", "/api/v1/runs?status=failed&limit=1"):
        url = stack["api_url"] + path
        with build_opener(ProxyHandler({})).open(url, timeout=10) as answer:
            text = answer.read().decode()
        print(f"$ curl '{url}'\n{text[:500]}{' …' if len(text) > 500 else ''}\n")
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
            env=environ,
            start_new_session=True,  # Ctrl-C reaches only the demo, which stops it
        )
    with up:
        assert up.stdout is not None
        try:
            line = up.stdout.readline()
            if not line:
                raise _DemoFailed(f"`runfold up` failed:\n{log_path.read_text(errors='replace')}")
            yield json.loads(line)
            _head("Stopping all of it, in order")
        finally:
            up.terminate()


def _runfold(environ: Mapping[str, str], *words: str, expected: int = 0) -> None:
    shown = " ".join(f"'{word}'" if " " in word else word for word in words)
    print(f"$ runfold {shown}", flush=True)
    done = subprocess.run([*_RUNFOLD, *words], env=environ, check=False)
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


def _head(text: str) -> None:
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {text}{plain}", flush=True)


def _run_checks(recorder: Recorder) -> str:
    """Run the checks as the nodes of one run; return its id."""
    plan = {check.node: list(check.parents) for check in _CHECKS}
    with recorder.run("checks", inputs={"folder": str(_HERE)}, nodes=plan) as run:
        for check in _CHECKS:
            _run_check(run, check)
    return run.id


def _run_check(run: Run, check: Check) -> None:
    inputs = {"command": " ".join(check.arguments)}
    with run.node(
        check.node, node_type=check.arguments[0], parents=check.parents, inputs=inputs
    ) as node:
        command = [sys.executable, "-m", *check.arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        if done.stdout:
            node.log(done.stdout, stream="stdout")
        print(f"  {check.node}: {(done.stdout.strip().splitlines() or ['done'])[-1]}")


def _fail_to_import_prices(recorder: Recorder) -> str:
    """Record a run with a node that raises; return the run's id."""
    lines = ['{"item": "tea", "usd": 3.2}', '{"item": "coffee", "usd": }']
    try:
        with recorder.run("import-prices", inputs={"lines": len(lines)}) as run:
            with run.node("fetch") as node:
                node.outputs = {"lines": len(lines)}
            with run.node("parse", parents=["fetch"]) as node:
                node.log(f"parsing {len(lines)} lines")
                node.outputs = [json.loads(line) for line in lines]
    except ValueError as error:
        print(f"import-prices has failed, as intended: {error}")
    return run.id


if __name__ == "__main__":
    sys.exit(main())
