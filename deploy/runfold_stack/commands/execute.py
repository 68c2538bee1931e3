"""`runfold exec`: run a command as it is, and record it beside."""

import os
import shutil
import signal
from argparse import (
    REMAINDER,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)

from runfold.errors import SettingInvalid
from runfold.serialization.normalize import is_run_id
from runfold_stack.execution.live_display import LiveDisplay, find_api
from runfold_stack.execution.process import ExitResult, run_command
from runfold_stack.execution.recorder import ExecutionRecorder
from runfold_stack.exit_codes import NOT_EXECUTABLE, NOT_FOUND, USAGE, CommandFailed
from runfold_stack.options.values import name
from runfold_stack.servers.redis_server import RedisServer
from runfold_stack.settings import Settings
from runfold_stack.terminal.output import say

from . import Context

_EPILOG = """\
examples:
  runfold exec -- make test
  runfold exec --workflow nightly-backup --tag host=db1 -- ./backup.sh --full
  runfold exec -- sh -c 'make test | tee log'
  runfold exec --watch -- ./pipeline.py

Its stdin, stdout, stderr, signals and exit code are as without Runfold; if stdout is a terminal
the command has one too. Recorded are its output, exit code, duration, directory, host and its
command line with secrets masked. When Redis is away or a setting is wrong, the command runs all
the same, and one line says what has become of the record.

exit codes:
  the command's own; 128 + n after signal n; 127: no such command; 126: it cannot be executed
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.usage = "runfold exec [options] -- COMMAND [ARGUMENT …]"
    parser.epilog = _EPILOG
    parser.add_argument(
        "--workflow", type=name, help="its name in the history (default: the command's)"
    )
    parser.add_argument("--project", type=name, help="the project that the run belongs to")
    parser.add_argument(
        "--tag", type=_tag, action="append", default=[], metavar="KEY=VALUE", help="label the run"
    )
    parser.add_argument("--run", type=_run_id, metavar="ID", help="the run's id (default: new)")
    parser.add_argument(
        "--watch", action="store_true", help="show the run as it goes on in place of its output"
    )
    parser.add_argument("--verbose", action="store_true", help="say the run's id on stderr")
    parser.add_argument("words", nargs=REMAINDER, metavar="COMMAND")


def run(arguments: Namespace, context: Context) -> int:
    """Run it, record it, return its exit code."""
    words = _words(arguments)
    settings = context.settings
    try:
        recording = ExecutionRecorder(
            # Where `up` would have it, also if it does not run: asking would cost time.
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
        return run_anyway(arguments)
    watcher = _watch(recording.run, settings) if arguments.watch else None
    exit_code = _execute(words, recording, shows_output=watcher is None)
    trouble = recording.close()
    if watcher is not None:
        watcher.close()
    if trouble is not None:
        say(trouble)
    elif arguments.verbose:
        say(f"recorded as {recording.run}")
    return exit_code


def run_anyway(arguments: Namespace) -> int:
    """Become the command, unrecorded; returns only if that fails."""
    words = _words(arguments)
    say("the command runs, but is not recorded")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and so would the command
    try:
        os.execvp(words[0], words)  # noqa: S606  # to run it is what was asked for
    except OSError as error:
        exit_code, message = _explain(words[0], error)
        say(message)
        return exit_code


def _words(arguments: Namespace) -> list[str]:
    words: list[str] = arguments.words
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise CommandFailed("exec: no command is given: runfold exec -- COMMAND …", USAGE)
    return words


def _watch(run: str, settings: Settings) -> LiveDisplay | None:
    api = find_api(settings)
    if api is None:
        say("the run cannot be watched, its output is shown: no API answers (`runfold up`)")
        return None
    return LiveDisplay(run, api)


def _execute(words: list[str], recording: ExecutionRecorder, *, shows_output: bool) -> int:
    try:
        ended = run_command(words, recording.begin, recording.listen, shows_output=shows_output)
    except OSError as error:
        exit_code, message = _explain(words[0], error)
        say(message)
        recording.refuse(message, exit_code)
        return exit_code
    exit_code = _exit_code(ended)
    recording.end(ended, exit_code)
    return exit_code


def _exit_code(ended: ExitResult) -> int:
    return ended.returncode if ended.returncode >= 0 else 128 - ended.returncode


def _explain(word: str, error: OSError) -> tuple[int, str]:
    if isinstance(error, FileNotFoundError) and shutil.which(word) is None:
        return NOT_FOUND, f"{word}: command not found"
    if isinstance(error, NotADirectoryError):
        return NOT_FOUND, f"{word}: {error.strerror}"
    return NOT_EXECUTABLE, f"{word}: {error.strerror or error}"


def _tag(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise ArgumentTypeError(f"{text!r}: write it as KEY=VALUE")
    return key, value


def _run_id(text: str) -> str:
    if not is_run_id(text):
        raise ArgumentTypeError(f"{text!r}: 1 to 200 characters are allowed")
    return text
