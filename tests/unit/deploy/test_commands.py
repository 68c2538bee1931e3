"""The commands' modules: each is imported alone, and brings no more than it needs."""

import pkgutil
import re
import subprocess
import sys

import pytest

from runfold_stack import commands

HEAVY = {"sqlalchemy", "psycopg", "alembic", "litestar", "rq"}


def test_every_module_has_a_command() -> None:
    """A module whose commands are not in the table cannot be called."""
    modules = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    assert {command.module for command in commands.COMMANDS} == modules


@pytest.mark.parametrize("command", commands.COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help(command: commands.Command) -> None:
    """Its options can be added to a parser, and its help ends with more than the options."""
    _, parser = command.load()
    assert parser.epilog
    assert not re.search(r"^ ?runfold", parser.epilog, re.MULTILINE)  # examples are indented
    assert f"usage: runfold {command.name}" in parser.format_help()


def test_exec_does_not_wait_for_what_only_reads_need() -> None:
    """It would take longer to import than all else, at each command that is recorded."""
    script = "import sys, runfold_stack.commands.execute; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert "runfold_stack.settings" in done.stdout.split()
    assert HEAVY.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("module", ["execute", "ingest", "stack", "watch"])
def test_a_module_that_reads_no_table_does_not_import_sqlalchemy(module: str) -> None:
    """It takes longer to import than the rest of the command."""
    script = f"import sys, runfold_stack.commands.{module}; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
