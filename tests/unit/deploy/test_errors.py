"""Exit codes, and the messages of expected errors."""

import re
from pathlib import Path

import pytest
import redis

from runfold_stack.commands import COMMANDS
from runfold_stack.errors import EXIT_CODES, CommandFailed, explain
from runfold_storage.errors import BadParameter, DatabaseUnreachable, SchemaOutdated

README = (Path(__file__).parents[3] / "deploy" / "README.md").read_text()


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (CommandFailed("no such thing"), 1),
        (CommandFailed("wrong word", 2), 2),
        (BadParameter("limit", "too large"), 2),
        (SchemaOutdated("run: runfold migrate"), 1),
        (DatabaseUnreachable("refused"), 3),
        (redis.ConnectionError("refused"), 3),
        (redis.TimeoutError("late"), 3),
        (redis.ResponseError("OOM"), 1),
        (FileNotFoundError(2, "No such file or directory", "x.json"), 1),
    ],
)
def test_an_expected_error_has_a_message_and_a_code(error: Exception, exit_code: int) -> None:
    """The message is one line."""
    explained = explain(error)
    assert explained is not None
    assert explained[1] == exit_code
    assert "\n" not in explained[0]


def test_a_bug_keeps_its_traceback() -> None:
    """The command prints it, because no message explains it."""
    assert explain(KeyError("x")) is None


def test_the_readme_has_every_exit_code() -> None:
    """With the same words as `--help`."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE)
    assert rows == [(str(code), meaning) for code, meaning in EXIT_CODES]


def test_the_readme_has_every_command() -> None:
    """Each stands in the table of commands, and no other."""
    table = README[README.index("| command |") : README.index("## Settings")]
    cells = re.findall(r"^\| (.*?) \| ", table, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`([a-z]+)", cell)}
    assert named == {command.name for command in COMMANDS}
