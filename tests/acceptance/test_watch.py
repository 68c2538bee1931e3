"""`runfold watch` and `exec --watch`, on a stack that `runfold up` has started."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from acceptance.cli_processes import RUNFOLD, Up, runfold, wait_for


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One stack for all tests here."""
    up = Up(tmp_path_factory.mktemp("up") / "home")
    yield up
    assert up.stop() == 0, up.log()


class Watching:
    """A `runfold watch` in the background, whose output goes to a file."""

    def __init__(self, path: Path, words: Sequence[str], env: dict[str, str]) -> None:
        self._path = path
        with path.open("wb") as output:
            self.process = subprocess.Popen(
                [*RUNFOLD, *words], stdout=output, stderr=subprocess.PIPE, env=env
            )

    @property
    def lines(self) -> list[str]:
        """Those that are whole."""
        return self._path.read_text().split("\n")[:-1]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def end(self) -> int:
        """Wait until it has ended by itself."""
        return self.process.wait(60)


@contextmanager
def watching(path: Path, *words: str, env: dict[str, str]) -> Iterator[Watching]:
    watching = Watching(path / "watched", ("watch", *words), env)
    try:
        yield watching
    finally:
        watching.process.kill()
        watching.process.communicate()


def in_a_terminal(*words: str, env: dict[str, str]) -> tuple[int, str]:
    """What a command shows in one, and its exit code."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(RUNFOLD[0], [*RUNFOLD, *words], env)
    shown = b""
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(fd)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_a_run_is_followed_to_its_end(up: Up, tmp_path: Path) -> None:
    """As lines, without a terminal: first what it wrote, then how it ended."""
    with watching(tmp_path, "followed", "--wait", env=up.env) as watched:
        script = "echo first; echo second >&2; exit 3"
        executed = runfold("exec", "--run", "followed", "--", "sh", "-c", script, env=up.env)
        assert executed.returncode == 3
        assert watched.end() == 1

    shown = [line.split(maxsplit=1)[1] for line in watched.lines]
    assert "stdout     first" in shown
    assert "stderr     second" in shown
    assert shown[-1].startswith("failed     followed  sh  ")
    assert shown[-1].endswith("ExitCode: exit code 3: second")


def test_a_run_that_is_over_or_not_there(up: Up) -> None:
    """Its exit code shows whether it completed; an unknown run is an error."""
    assert runfold("exec", "--run", "went-well", "--", "true", env=up.env).returncode == 0
    answer = runfold("watch", "went-well", "--wait", env=up.env)
    assert answer.returncode == 0
    assert b"completed  went-well" in answer.stdout

    answer = runfold("watch", "unknown", env=up.env)
    assert (answer.returncode, answer.stdout) == (1, b"")
    assert b"unknown" in answer.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--status", "done"), b"status"),
        (("--wait",), b"--wait"),
        (("some-run", "--project", "x"), b"filters are for lists"),
    ],
)
def test_what_makes_no_sense_is_refused(up: Up, words: tuple[str, ...], message: bytes) -> None:
    """By its name, with the exit code of a wrong command line."""
    answer = runfold("watch", *words, env=up.env)
    assert answer.returncode == 2
    assert message in answer.stderr


def test_a_list_is_followed_past_the_death_of_the_api(up: Up, tmp_path: Path) -> None:
    """Changes during an outage are shown afterwards, and none twice."""
    words = ("--json", "--workflow", "across")

    def execute(number: int) -> None:
        answer = runfold(
            "exec", "--workflow", "across", "--run", f"n{number}", "--", "true", env=up.env
        )
        assert answer.returncode == 0

    def ended(watched: Watching) -> list[str]:
        """In the order in which their ends arrived."""
        return [
            event["data"]["id"]
            for event in watched.events
            if event["event"] == "changed" and event["data"]["status"] == "completed"
        ]

    with watching(tmp_path, *words, env=up.env) as watched:
        wait_for(lambda: watched.events, "the snapshot")
        execute(1)
        wait_for(lambda: ended(watched) == ["n1"], "the first run")
        before = len(up.pids_of("api"))
        os.kill(up.pids_of("api")[-1], signal.SIGKILL)
        execute(2)
        wait_for(lambda: len(up.pids_of("api")) > before, "another API")
        wait_for(lambda: len(ended(watched)) > 1, "what happened meanwhile")
        execute(3)
        wait_for(lambda: len(ended(watched)) > 2, "the last run")
        watched.process.send_signal(signal.SIGTERM)
        assert watched.end() == 130

    assert ended(watched) == ["n1", "n2", "n3"]
    assert [event["event"] for event in watched.events].count("snapshot") == 1


def test_a_picture_in_a_terminal(up: Up) -> None:
    """With colours, unless NO_COLOR is set; the last frame shows the end."""
    assert runfold("exec", "--run", "drawn", "--", "echo", "hello", env=up.env).returncode == 0
    env = {**up.env, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}

    exit_code, shown = in_a_terminal("watch", "drawn", "--wait", env=env)
    assert exit_code == 0
    assert "\x1b[32mcompleted" in shown
    assert "hello" in shown

    exit_code, shown = in_a_terminal("watch", "drawn", env={**env, "NO_COLOR": "1"})
    assert exit_code == 0
    assert "\x1b[32m" not in shown
    assert "completed" in shown

    exit_code, shown = in_a_terminal("watch", "drawn", env={**env, "TERM": "dumb"})
    assert exit_code == 0
    assert "\x1b" not in shown
    assert "hello" in shown


def test_exec_shows_the_run_in_place_of_the_output(up: Up) -> None:
    """And ends as the command does."""
    script = "echo working; sleep 0.3; echo broken >&2; exit 4"
    answer = runfold(*("exec", "--watch", "--run", "watched", "--", "sh", "-c", script), env=up.env)
    assert answer.returncode == 4
    lines = [line.split(maxsplit=1)[1] for line in answer.stdout.decode().splitlines()]
    assert "stdout     working" in lines
    assert lines[-1].startswith("failed     watched  sh  ")


def test_exec_shows_the_output_when_there_is_no_api(up: Up) -> None:
    """The output of the command is not hidden."""
    env = {**up.env, "RUNFOLD_API_URL": "http://127.0.0.1:1"}
    answer = runfold("exec", "--watch", "--", "sh", "-c", "echo working", env=env)
    assert (answer.returncode, answer.stdout) == (0, b"working\n")
    assert b"no API answers" in answer.stderr
