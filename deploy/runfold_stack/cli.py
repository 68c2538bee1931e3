"""`runfold`: finds the command, reads the settings, runs it, and turns its end into an exit code.

Promises: no traceback for what can be expected to go wrong, but one line that names the culprit
and the remedy; Ctrl-C and a reader that goes away end it quietly.
"""

import argparse
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final, cast

from runfold.errors import SettingInvalid
from runfold_stack.terminal.output import Output, say

from .commands import COMMANDS, Command, CommandModule, Context
from .exit_codes import BROKEN_PIPE, EXIT_CODES, INTERRUPTED, USAGE, explain
from .settings import read_settings

_EXAMPLES: Final = """\
examples:
  runfold up                              start everything, on this machine
  runfold exec -- make test               record a command
  runfold runs --status failed            what went wrong lately?
  runfold show RUN                        one run, with its nodes and its error
  runfold watch                           what is running now?
  runfold stats nightly-report --since 7d how long, how often, how much?
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        message, exit_code = explained
        say(message)
        if isinstance(error, OSError):  # of stdout, perhaps, which would fail once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return exit_code


def _dispatch(words: list[str]) -> int:
    if not words:
        sys.stderr.write(_help())
        return USAGE
    if words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        sys.stdout.flush()
        return 0
    if words[0] in ("-V", "--version", "version"):
        sys.stdout.write(f"runfold {_version()}\n")
        sys.stdout.flush()
        return 0
    command = next((command for command in COMMANDS if command.name == words[0]), None)
    if command is None:
        near = difflib.get_close_matches(words[0], [c.name for c in COMMANDS], n=1)
        hint = f"did you mean `runfold {near[0]}`?" if near else "`runfold --help` lists them"
        say(f"there is no command {words[0]!r}: {hint}")
        return USAGE
    return _run(command, words[1:])


def _run(command: Command, words: list[str]) -> int:
    module = cast("CommandModule", importlib.import_module(command.module))
    parser = argparse.ArgumentParser(
        prog=f"runfold {command.name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    arguments = parser.parse_args(words)
    try:
        settings = read_settings(os.environ, as_root=os.geteuid() == 0)
    except SettingInvalid as error:
        say(str(error))
        return module.run_anyway(arguments) if hasattr(module, "run_anyway") else USAGE
    logging.getLogger("runfold").addHandler(logging.NullHandler())
    output = Output(is_json=getattr(arguments, "json", False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    exit_code = module.run(arguments, Context(settings, output))
    if sys.stdout is not None:
        sys.stdout.flush()
    return exit_code


def _help() -> str:
    width = max(len(command.name) for command in COMMANDS)
    commands = "".join(f"  {c.name:<{width}}  {c.summary}\n" for c in COMMANDS)
    codes = "".join(f"  {code:<4} {meaning}\n" for code, meaning in EXIT_CODES)
    return (
        "usage: runfold COMMAND …\n\n"
        "Runfold keeps the history of executions: runs, nodes, statistics.\n\n"
        f"commands:\n{commands}\n"
        "`runfold COMMAND --help` explains one. `--version` tells the version.\n\n"
        f"{_EXAMPLES}\n"
        f"exit codes:\n{codes}"
        "  `exec` ends as its command does; 127: no such command, 126: it cannot be executed\n"
    )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow, and rarely asked for

    try:
        return version("runfold")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
