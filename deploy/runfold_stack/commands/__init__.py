"""The commands, each in a module that is imported only when it is called.

A module has `configure(parser)`, which adds its arguments, and `run(arguments, context)`, which
returns the exit code. It reads neither the environment nor the command line by itself. It may
have `run_anyway(arguments)` for when a setting is wrong; the others do nothing then.
"""

from argparse import ArgumentParser, Namespace
from typing import Final, NamedTuple, Protocol

from runfold_stack.settings import Settings
from runfold_stack.terminal.output import Output


class Context(NamedTuple):
    """What every command is given."""

    settings: Settings
    output: Output


class CommandModule(Protocol):
    """What a module of this package offers."""

    def configure(self, parser: ArgumentParser) -> None: ...

    def run(self, arguments: Namespace, context: Context) -> int: ...


class Command(NamedTuple):
    """A command's name, which is that of its module too, and what it does."""

    name: str
    summary: str

    @property
    def module(self) -> str:
        return _RENAMED.get(self.name, f"{__name__}.{self.name}")


COMMANDS: Final = (
    Command("up", "start everything: Redis, PostgreSQL, workers and the API"),
    Command("down", "stop what `up` started, and what a killed one left behind"),
    Command("exec", "run a command and record it: output, exit code, duration"),
    Command("runs", "list runs, newest first"),
    Command("show", "show one run with its nodes, error and output"),
    Command("failures", "show what goes wrong most, in groups that failed alike"),
    Command("stats", "show counts, durations and cost by workflow or by node"),
    Command("watch", "show runs as they change, or one run as it goes on"),
    Command("export", "write runs to a file: CSV, NDJSON or Parquet"),
    Command("delete", "delete runs, by their ids or by filters"),
    Command("emit", "send events, one JSON object a line"),
    Command("import", "import executions that other systems recorded"),
    Command("worker", "fold events into the history until stopped"),
    Command("api", "serve the history over HTTP until stopped"),
    Command("migrate", "bring the database to this version's schema"),
    Command("rebuild", "fold everything once more from the ledger, while all goes on"),
    Command("verify", "compare runs and statistics with the ledger"),
    Command("repair", "put right what `verify` finds"),
    Command("retention", "say how long what is kept, and do what is due"),
    Command("restore", "bring back what the archive has, into a new database"),
    Command("search", "say whose inputs and outputs are searched, and how far that is"),
    Command("jobs", "show work that takes long: deletions, rebuilds, retention"),
    Command("drain", "send what waits in the spool of this machine"),
    Command("doctor", "check that all parts are well"),
)

# Words that Python keeps for itself, or that hide a builtin.
_RENAMED: Final = {
    "exec": f"{__name__}.execute",
    "import": f"{__name__}.import_traces",
}
