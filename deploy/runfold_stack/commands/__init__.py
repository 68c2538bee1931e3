"""The commands, one per module; a module is imported only when its command is called.

A module has `configure(parser)`, which adds the arguments, `EPILOG`, which ends the help text, and
`run(arguments, context)`, which returns the exit code. It reads neither the environment nor
`sys.argv`. With `run_anyway(arguments)` a command can run although a setting is invalid; other
commands then end with exit code 2.

Commands that change data (`rebuild`, `restore`, `retention run`, `delete`) work in short committed
steps. After Ctrl-C, SIGTERM or a kill the same command resumes or repeats them without harm.
"""

from argparse import ArgumentParser, Namespace
from typing import Final, NamedTuple, Protocol

from runfold_stack.settings import Settings
from runfold_stack.terminal.output import Output


class Context(NamedTuple):
    """The settings and the output of one call."""

    settings: Settings
    output: Output


class CommandModule(Protocol):
    """The interface of a command's module."""

    def configure(self, parser: ArgumentParser) -> None: ...

    def run(self, arguments: Namespace, context: Context) -> int: ...


class Command(NamedTuple):
    """A command's name, which usually is its module's name, and its help text."""

    name: str
    summary: str

    @property
    def module(self) -> str:
        return _RENAMED.get(self.name, f"{__name__}.{self.name}")


COMMANDS: Final = (
    Command("up", "start everything: Redis, PostgreSQL, workers and the API"),
    Command("down", "stop `up`, and the servers that a killed `up` has left running"),
    Command("exec", "run a command and record it: output, exit code, duration"),
    Command("runs", "list runs, newest first"),
    Command("show", "show one run with its nodes, error and output"),
    Command("failures", "show the most frequent failures, in groups that are alike"),
    Command("stats", "show counts, durations and cost by workflow or by node"),
    Command("watch", "show runs live, or one run with its nodes and output"),
    Command("export", "write runs to a file: CSV, NDJSON or Parquet"),
    Command("delete", "delete runs, by their ids or by filters"),
    Command("emit", "send events, one JSON object per line"),
    Command("import", "import executions that other systems recorded"),
    Command("worker", "fold events into the history until stopped"),
    Command("api", "serve the history over HTTP until stopped"),
    Command("migrate", "migrate the database to this version's schema"),
    Command("rebuild", "fold runs and statistics again from the ledger, during operation"),
    Command("verify", "compare runs and statistics with the ledger"),
    Command("repair", "correct the differences that `verify` finds"),
    Command("retention", "manage retention policies and apply them"),
    Command("restore", "restore an archive into a new database"),
    Command("search", "choose the projects with searchable inputs and outputs"),
    Command("jobs", "show long-running jobs: deletions, rebuilds, retention"),
    Command("drain", "send the events in this machine's spool"),
    Command("doctor", "check every part of the deployment"),
)

# Names that are reserved in Python, or would hide a builtin.
_RENAMED: Final = {
    "exec": f"{__name__}.execute",
    "import": f"{__name__}.import_traces",
}
