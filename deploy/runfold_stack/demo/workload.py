"""The work that the demo records: real checks of real files, and an import that fails."""

import importlib.util
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from runfold import Recorder
from runfold.recording.run import Run

_ROOT: Final = Path(__file__).parents[3]
_SOURCES: Final = ("producers", "storage", "workers", "api", "deploy")
_TESTS: Final = (
    "tests/unit/deploy/test_settings.py",
    "tests/unit/deploy/execution/test_output_recorder.py",
)


class Check(NamedTuple):
    """One node: a Python module, run in the checkout."""

    node: str
    arguments: tuple[str, ...]
    parents: tuple[str, ...] = ()


_OF_RUNFOLD: Final = (
    Check("lint", ("ruff", "check", *_SOURCES)),
    Check("format", ("ruff", "format", "--check", *_SOURCES)),
    Check("types", ("mypy", "-p", "runfold"), ("lint", "format")),
    Check("unit tests", ("pytest", "-q", "-p", "no:cacheprovider", *_TESTS), ("lint", "format")),
)
_OF_PYTHON: Final = (
    Check("platform", ("platform",)),
    Check("compile", ("compileall", "-q", str(Path(__file__).parent))),
    Check("sort", ("timeit", "-n", "20", "sorted(range(100000), key=hash)"), ("platform",)),
    Check(
        "json", ("timeit", "-n", "2000", "-s", "import json", "json.dumps([1] * 500)"), ("sort",)
    ),
)


class CheckFailed(Exception):
    """A check has failed; its output has the reason."""


def run_checks(recorder: Recorder) -> str:
    """Run the checks as the nodes of one run, two at a time; return the run's id."""
    checks = _OF_RUNFOLD if _is_checkout() else _OF_PYTHON
    plan = {check.node: list(check.parents) for check in checks}
    try:
        with recorder.run("checks", inputs={"folder": str(_ROOT)}, nodes=plan) as run:
            done: set[str] = set()
            waiting = list(checks)
            while waiting:
                ready = [check for check in waiting if done.issuperset(check.parents)] or waiting
                with ThreadPoolExecutor(2) as threads:
                    list(threads.map(lambda check: _run_check(run, check), ready))
                done |= {check.node for check in ready}
                waiting = [check for check in waiting if check.node not in done]
    except CheckFailed as error:
        print(f"a check has failed, which is recorded, too: {error}")
    return run.id


def fail_to_import_prices(recorder: Recorder) -> str:
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


def _run_check(run: Run, check: Check) -> None:
    command = [sys.executable, "-m", *check.arguments]
    with run.node(
        check.node,
        node_type=check.arguments[0],
        parents=check.parents,
        inputs={"command": " ".join(check.arguments)},
    ) as node:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        for stream, text in (("stdout", done.stdout), ("stderr", done.stderr)):
            if text:
                node.log(text, stream=stream)
        node.outputs = {"exit_code": done.returncode}
        print(f"  {check.node}: {(done.stdout.strip().splitlines() or ['done'])[-1]}")
        if done.returncode:
            raise CheckFailed(f"{check.node}: exit code {done.returncode}")


def _is_checkout() -> bool:
    programs = ("ruff", "mypy", "pytest")
    return (_ROOT / "pyproject.toml").exists() and all(map(importlib.util.find_spec, programs))
