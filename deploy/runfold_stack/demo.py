"""`make demo`: record real work on a stack of its own, and show the history with the real commands.

The stack lives in a temporary folder, which is removed at the end, also after Ctrl-C or SIGTERM.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.request import ProxyHandler, build_opener

from runfold import Recorder
from runfold_storage.history import History

from .errors import INTERRUPTED, OK
from .settings import VARIABLES

_FOLDED_S: Final = 30.0
_ENDED: Final = ("completed", "failed", "cancelled")
_RUNFOLD: Final = (sys.executable, "-P", "-m", "runfold_stack.cli")
_HERE: Final = str(Path(__file__).parent)
# Each node is a Python module with its arguments, and has parents.
_CHECKS: Final[dict[str, tuple[list[str], list[str]]]] = {
    "platform": (["platform"], []),
    "compile": (["compileall", "-q", _HERE], []),
    "syntax": (["tabnanny", _HERE], ["platform", "compile"]),
    "sort": (["timeit", "-n", "20", "sorted(range(100000), key=hash)"], ["platform"]),
    "json": (["timeit", "-n", "2000", "-s", "import json", "json.dumps([1] * 500)"], ["sort"]),
}


def main() -> int:
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it stops the stack, too
    try:
        with TemporaryDirectory(prefix="runfold-demo-", ignore_cleanup_errors=True) as folder:
            os.chmod(folder, 0o755)  # noqa: S103, root's servers run as another user and enter it
            # Without settings that point to a real deployment.
            environ = {name: each for name, each in os.environ.items() if name not in VARIABLES}
            environ["RUNFOLD_HOME"] = folder
            with _stack(environ, Path(folder, "up.log")) as stack:
                _show(stack, environ)
    except KeyboardInterrupt:
        return INTERRUPTED
    _head(f"Everything is stopped and removed, after {time.monotonic() - began:.0f} s")
    program = os.path.relpath(Path(sys.executable).with_name("runfold"))
    print("Now record your own work, and keep the data:\n")
    print(f"    {program} up")
    print(f"    {program} exec -- COMMAND          in another terminal")
    return OK


@contextmanager
def _stack(environ: Mapping[str, str], log_path: Path) -> Iterator[dict[str, Any]]:
    _head("Starting Redis, PostgreSQL, a worker and the API, in a folder of their own")
    print("$ runfold up", flush=True)
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
                sys.exit(f"demo: `runfold up` failed:\n{log_path.read_text(errors='replace')}")
            yield json.loads(line)
            _head("Stopping all of it, in order")
        finally:
            up.terminate()


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


def _runfold(environ: Mapping[str, str], *words: str, expected: int = 0) -> None:
    shown = " ".join(f"'{word}'" if " " in word else word for word in words)
    print(f"$ runfold {shown}", flush=True)
    done = subprocess.run([*_RUNFOLD, *words], env=environ, check=False)
    if done.returncode != expected:
        sys.exit(f"demo: `runfold {shown}` ended with {done.returncode}, not {expected}")
    if expected:
        print(f"(exit code {expected}, the same as the command's)")


def _await_folded(database_url: str, runs: int) -> None:
    deadline = time.monotonic() + _FOLDED_S
    with History(database_url, pool_size=1) as history:
        while sum(run.status in _ENDED for run in history.runs().runs) < runs:
            if time.monotonic() > deadline:
                sys.exit(f"demo: not all runs could be read after {_FOLDED_S:g} s")
            time.sleep(0.05)


def _head(text: str) -> None:
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {text}{plain}", flush=True)


def _run_checks(recorder: Recorder) -> str:
    plan = {name: parents for name, (_, parents) in _CHECKS.items()}
    with recorder.run("checks", inputs={"folder": _HERE}, nodes=plan) as run:
        for name, (words, parents) in _CHECKS.items():
            inputs = {"command": " ".join(words)}
            with run.node(name, node_type=words[0], parents=parents, inputs=inputs) as node:
                command = [sys.executable, "-m", *words]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                if done.stdout:
                    node.log(done.stdout, stream="stdout")
            print(f"  {name}: {(done.stdout.strip().splitlines() or ['done'])[-1]}")
    return run.id


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
