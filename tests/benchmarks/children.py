"""Processes that a benchmark consists of, each with an interpreter of its own.

A child says a line when it is ready, waits to be told to go, and answers in JSON lines on its
standard output. Its standard input stays open as long as the parent lives: at its end the child
stops, so no child outlives a benchmark that is killed.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from conditions import RunnableWorker

_READY: Final = "ready"
_GO: Final = "go"
_PATIENCE_S: Final = 60.0


class ChildFailed(Exception):
    """A child ended before its work was done; its own words are on the terminal."""


class Child:
    """`python -P -m benchmarks.MODULE ARGUMENTS`, ended with the block."""

    def __init__(self, module: str, **arguments: object) -> None:
        tests = str(Path(__file__).resolve().parents[1])
        self._module = module
        self._is_ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"benchmarks.{module}", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": tests},
            text=True,
        )

    @property
    def pid(self) -> int:
        """Of the process itself; it may have children."""
        return self._process.pid

    def go(self) -> None:
        """Wait until the child is ready, then let it go."""
        self.await_ready()
        self.release()

    def await_ready(self) -> None:
        """Wait until the child has imported and prepared everything."""
        if not self._is_ready and (said := self.answer()) != _READY:
            raise ChildFailed(f"benchmarks.{self._module} said {said!r} instead of {_READY!r}")
        self._is_ready = True

    def release(self) -> None:
        """Let a child that is ready go; some understand it once more as an end."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended by itself
            self._process.stdin.write(f"{_GO}\n")
            self._process.stdin.flush()

    def answer(self) -> Any:
        """The next line that the child says, decoded."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildFailed(f"benchmarks.{self._module} ended: exit code {self._process.wait()}")
        return json.loads(line)

    def check(self) -> None:
        """Raise `ChildFailed` when the child has ended."""
        if (code := self._process.poll()) is not None:
            raise ChildFailed(f"benchmarks.{self._module} ended: exit code {code}")

    def stop(self) -> None:
        """Close the child's input, which ends it; kill it when it does not listen."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.kill()
        self.stop()
        assert self._process.stdout is not None
        self._process.stdout.close()


def arguments() -> dict[str, Any]:
    """In the child: what `Child` was given."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def say(answer: object) -> None:
    """In the child: one line to the parent."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


def await_go() -> None:
    """In the child: say that all is prepared, and wait to be told; exit when the parent is gone."""
    say(_READY)
    if sys.stdin.readline() != f"{_GO}\n":
        sys.exit(1)


def await_line() -> None:
    """In the child: return when it is let go once more, or the parent is gone."""
    sys.stdin.readline()


def await_end() -> None:
    """In the child: return when the parent closes our input, or is gone."""
    sys.stdin.read()


def run_worker(worker: RunnableWorker) -> None:
    """In the child: run a worker from the go to the parent's end."""
    await_go()

    def stop_with_parent() -> None:
        await_end()
        worker.stop()

    threading.Thread(target=stop_with_parent, daemon=True).start()
    worker.run()
