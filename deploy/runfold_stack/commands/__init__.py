"""The commands, by subject; a module is imported only when one of its commands is called.

A command is a function with the decorator `command`, which takes its options. Its docstring is the
end of its help text. It returns the exit code, or None for success, and reads neither the
environment nor `sys.argv`. After an interruption or a kill, the same command resumes or repeats its
work without harm.
"""

import importlib
import inspect
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import Final, NamedTuple

from runfold_stack.options import Group, Option, add_options
from runfold_stack.settings import Settings
from runfold_stack.terminal.output import Output


class Context(NamedTuple):
    settings: Settings
    output: Output


class Function(NamedTuple):
    """A command's function, options and help; `run_anyway` runs it if a setting is invalid."""

    run: Callable[[Namespace, Context], int | None]
    options: tuple[Option | Group, ...]
    usage: str | None
    run_anyway: Callable[[Namespace], int] | None


def command(
    *options: Option | Group,
    usage: str | None = None,
    run_anyway: Callable[[Namespace], int] | None = None,
) -> Callable[[Callable[[Namespace, Context], int | None]], Function]:
    """Make a function a command with these options."""
    return lambda run: Function(run, options, usage, run_anyway)


class Command(NamedTuple):
    """A command's name, its module here, and its summary; the function has the command's name."""

    name: str
    module: str
    summary: str

    def load(self) -> tuple[Function, ArgumentParser]:
        """Import the module; return the function and the parser of its arguments."""
        module = importlib.import_module(f"{__name__}.{self.module}")
        function: Function = getattr(module, _RENAMED.get(self.name, self.name))
        parser = ArgumentParser(
            prog=f"runfold {self.name}",
            usage=function.usage,
            description=f"{self.summary[0].upper()}{self.summary[1:]}.",
            epilog=inspect.getdoc(function.run),
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add_options(parser, function.options)
        return function, parser


COMMANDS: Final = (
    Command("up", "stack", "start everything: Redis, PostgreSQL, workers and the API"),
    Command("down", "stack", "stop `up`, and the servers that a killed `up` has left running"),
    Command("exec", "execute", "run a command and record it: output, exit code, duration"),
    Command("runs", "runs", "list runs, newest first"),
    Command("show", "runs", "show one run with its nodes, error and output"),
    Command("failures", "stats", "show the most frequent failures, in groups that are alike"),
    Command("stats", "stats", "show counts, durations and cost by workflow or by node"),
    Command("watch", "watch", "show runs live, or one run with its nodes and output"),
    Command("export", "runs", "write runs to a file: CSV, NDJSON or Parquet"),
    Command("delete", "runs", "delete runs, by their ids or by filters"),
    Command("emit", "ingest", "send events, one JSON object per line"),
    Command("import", "ingest", "import executions that other systems recorded"),
    Command("worker", "worker", "fold events into the history until stopped"),
    Command("api", "api", "serve the history over HTTP until stopped"),
    Command("migrate", "recovery", "migrate the database to this version's schema"),
    Command("rebuild", "recovery", "fold runs and statistics again from the ledger"),
    Command("verify", "recovery", "compare runs and statistics with the ledger"),
    Command("repair", "recovery", "correct the differences that `verify` finds"),
    Command("retention", "retention", "manage retention policies and apply them"),
    Command("restore", "recovery", "restore an archive into a new database"),
    Command("search", "admin", "choose the projects with searchable inputs and outputs"),
    Command("jobs", "admin", "show long-running jobs: deletions, rebuilds, retention"),
    Command("drain", "ingest", "send the events in this machine's spool"),
    Command("doctor", "admin", "check every part of the deployment"),
)

# Names that are reserved in Python.
_RENAMED: Final = {"exec": "execute", "import": "import_traces"}
