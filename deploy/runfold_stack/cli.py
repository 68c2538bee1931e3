"""`runfold`: find the command, read the settings, run it, and return its exit code."""

import difflib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from runfold.errors import SettingInvalid
from runfold_stack.terminal.output import Output, say

from .commands import COMMANDS, Context
from .errors import BROKEN_PIPE, EXIT_CODES, INTERRUPTED, OK, USAGE, explain
from .settings import read_settings

_EXAMPLES: Final = """\
examples:
  runfold up                              start everything on this machine
  runfold exec -- make test               record a command
  runfold runs --status failed            list failed runs
  runfold show RUN                        show one run with its nodes and its error
  runfold watch                           show runs live
  runfold stats nightly-report --since 7d show counts, durations and cost
"""


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout again at exit, and would print an error there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        message, exit_code = explained
        say(message)
        if isinstance(error, OSError):  # possibly of stdout, whose flush at exit would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return exit_code


def _dispatch(words: list[str]) -> int:
    match words[:1]:
        case []:
            sys.stderr.write(_help())
            return USAGE
        case ["-h" | "--help" | "help"]:
            print(_help(), end="", flush=True)
            return OK
        case ["-V" | "--version" | "version"]:
            from importlib.metadata import version  # slow, and rarely needed

            print(f"runfold {version('runfold')}", flush=True)
            return OK
    command = next((command for command in COMMANDS if command.name == words[0]), None)
    if command is None:
        near = difflib.get_close_matches(words[0], [c.name for c in COMMANDS], n=1)
        hint = f"did you mean `runfold {near[0]}`?" if near else "`runfold --help` lists all"
        say(f"there is no command {words[0]!r}: {hint}")
        return USAGE
    function, parser = command.load()
    arguments = parser.parse_args(words[1:])
    try:
        settings = read_settings(os.environ, as_root=os.geteuid() == 0)
    except SettingInvalid as error:
        say(str(error))
        return USAGE if function.run_anyway is None else function.run_anyway(arguments)
    logging.getLogger("runfold").addHandler(logging.NullHandler())
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    output = Output(is_json=getattr(arguments, "json", False))
    exit_code = function.run(arguments, Context(settings, output))
    if sys.stdout is not None:
        sys.stdout.flush()
    return exit_code or OK


def _help() -> str:
    width = max(len(command.name) for command in COMMANDS)
    commands = "".join(f"  {c.name:<{width}}  {c.summary}\n" for c in COMMANDS)
    codes = "".join(f"  {code:<4} {meaning}\n" for code, meaning in EXIT_CODES)
    return (
        "usage: runfold COMMAND …\n\n"
        "Runfold records the history of executions: runs, nodes, statistics.\n\n"
        f"commands:\n{commands}\n"
        "`runfold COMMAND --help` explains a command; `--version` prints the version.\n\n"
        f"{_EXAMPLES}\n"
        f"exit codes:\n{codes}"
        "  `exec` returns the exit code of its command; 127: not found, 126: not executable\n"
    )


if __name__ == "__main__":
    sys.exit(main())
