"""Command lines without their secrets."""

import pytest

from runfold.serialization.redaction import REDACTED, Redactor
from runfold_stack.argv_redaction import redact_command_line


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["make", "test"], ["make", "test"]),
        (["x", "--password=hunter2"], ["x", f"--password={REDACTED}"]),
        (["x", "--api-key", "abc", "y"], ["x", "--api-key", REDACTED, "y"]),
        (["x", "--token", "--verbose"], ["x", "--token", "--verbose"]),
        (["env", "DB_PASSWORD=a b", "x"], ["env", f"DB_PASSWORD={REDACTED}", "x"]),
        (["curl", "-H", "Authorization: Bearer abc"], ["curl", "-H", f"Authorization: {REDACTED}"]),
        (["psql", "postgresql://me:pw@h/d"], ["psql", f"postgresql://me:{REDACTED}@h/d"]),
        (["sh", "-c", "cd x; TOKEN=abc y"], ["sh", "-c", f"cd x; TOKEN={REDACTED} y"]),
        (["x", "--max-tokens=5", "--count=3"], ["x", "--max-tokens=5", "--count=3"]),
    ],
)
def test_secrets_are_masked(words: list[str], shown: list[str]) -> None:
    """Values under a sensitive name are masked, all others stay."""
    assert redact_command_line(words, Redactor()) == shown
