"""What a check found, and what to do about it."""

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True, omit_defaults=True):
    """One line of the report; `remedy` is empty only where there is nothing to do."""

    level: Level
    check: str
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding("ok", check, found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """It works, but may not for long, or not as expected."""
    return Finding("warn", check, found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding("fail", check, found, remedy)
