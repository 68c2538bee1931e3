"""`runfold exec`: run a command unchanged and record it."""

import os
import shutil
import signal
import subprocess
import sys
from argparse import REMAINDER, ArgumentTypeError, Namespace
from typing import Final

from runfold.errors import SettingInvalid
from runfold.serialization.normalize import is_run_id
from runfold_stack.errors import NOT_EXECUTABLE, NOT_FOUND, USAGE, CommandFailed
from runfold_stack.execution.process import run_command
from runfold_stack.execution.recorder import ExecutionRecorder
from runfold_stack.options import name, option
from runfold_stack.processes.ports import answers
from runfold_stack.processes.up_lock import api_address
from runfold_stack.servers.redis_server import RedisServer
from runfold_stack.settings import Settings
from runfold_stack.terminal.output import say

from . import Context, command

_LAST_FRAME_S: Final = 10.0


def _tag(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise ArgumentTypeError(f"{text!r}: write it as KEY=VALUE")
    return key, value


def _run_id(text: str) -> str:
    if not is_run_id(text):
        raise ArgumentTypeError(f"{text!r}: 1 to 200 characters are allowed")
    return text


def _run_unrecorded(arguments: Namespace) -> int:
    """Replace this process by the command; return only if that fails."""
    words = _words(arguments)
    say("the command runs, but is not recorded")
    # Python ignores SIGPIPE, and the command would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(words[0], words)  # noqa: S606, runs the user's command
    except OSError as error:
        exit_code, message = _explain(words[0], error)
        say(message)
        return exit_code


@command(
    option("--workflow", type=name, help="the run's workflow (default: the command's name)"),
    option("--project", type=name, help="the run's project"),
    option("--tag", type=_tag, action="append", default=[], metavar="KEY=VALUE", help="a tag"),
    option("--run", type=_run_id, metavar="ID", help="the run's id (default: new)"),
    option("--watch", action="store_true", help="show the run live in place of its output"),
    option("--verbose", action="store_true", help="print the run's id on stderr"),
    option("words", nargs=REMAINDER, metavar="COMMAND"),
    usage="runfold exec [options] -- COMMAND [ARGUMENT …]",
    run_anyway=_run_unrecorded,
)
def execute(arguments: Namespace, context: Context) -> int:
    """examples:
      runfold exec -- make test
      runfold exec --workflow nightly-backup --tag host=db1 -- ./backup.sh --full
      runfold exec -- sh -c 'make test | tee log'
      runfold exec --watch -- ./pipeline.py

    Stdin, stdout, stderr, signals and the exit code are the same as without Runfold; if stdout is a
    terminal, the command gets a terminal too. The output, exit code, duration, directory, host and
    the command line with masked secrets are recorded. If Redis is unavailable or a setting is
    invalid, the command still runs, and one line on stderr says what happened to the record.

    exit codes:
      the command's own; 128 + n after signal n; 127: no such command; 126: it cannot be executed
    """
    words = _words(arguments)
    settings = context.settings
    try:
        recording = ExecutionRecorder(
            # The URL that `up` would use, even if it does not run: checking would take time.
            settings.redis_url or RedisServer(settings.home / "redis").url,
            words,
            workflow=arguments.workflow,
            project=arguments.project or settings.project,
            tags=dict(arguments.tag),
            run=arguments.run,
            shards=settings.shards,
        )
    except SettingInvalid as error:
        say(str(error))
        return _run_unrecorded(arguments)
    display = _start_display(recording.run, settings) if arguments.watch else None
    exit_code = _execute(words, recording, shows_output=display is None)
    problem = recording.close()
    if display is not None:
        try:
            display.wait(_LAST_FRAME_S)  # it shows the run's end, but not for long
        except subprocess.TimeoutExpired:
            display.terminate()
            display.wait()
    if problem is not None:
        say(problem)
    elif arguments.verbose:
        say(f"recorded as {recording.run}")
    return exit_code


def _words(arguments: Namespace) -> list[str]:
    words: list[str] = arguments.words
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise CommandFailed("exec: no command is given: use runfold exec -- COMMAND …", USAGE)
    return words


def _start_display(run: str, settings: Settings) -> "subprocess.Popen[bytes] | None":
    """Start a process that draws the run, so that a slow terminal never delays the recording."""
    api = api_address(settings)
    if not answers(f"{api}/readyz"):
        say("no API answers (start one with `runfold up`): showing the command's output instead")
        return None
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "runfold_stack.cli", "watch", "--wait", "--", run],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "RUNFOLD_API_URL": api},
        preexec_fn=_ignore_keyboard_signals,  # noqa: PLW1509, no thread has been started yet
    )


def _ignore_keyboard_signals() -> None:
    """Leave Ctrl-C to the command, whose end the display then shows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)


def _execute(words: list[str], recording: ExecutionRecorder, *, shows_output: bool) -> int:
    try:
        result = run_command(words, recording.begin, recording.listen, shows_output=shows_output)
    except OSError as error:
        exit_code, message = _explain(words[0], error)
        say(message)
        recording.refuse(message, exit_code)
        return exit_code
    exit_code = result.returncode if result.returncode >= 0 else 128 - result.returncode
    recording.end(result, exit_code)
    return exit_code


def _explain(word: str, error: OSError) -> tuple[int, str]:
    if isinstance(error, FileNotFoundError) and shutil.which(word) is None:
        return NOT_FOUND, f"{word}: command not found"
    if isinstance(error, NotADirectoryError):
        return NOT_FOUND, f"{word}: {error.strerror}"
    return NOT_EXECUTABLE, f"{word}: {error.strerror or error}"
