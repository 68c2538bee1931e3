"""The result of a check: level, finding and remedy."""

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True, omit_defaults=True):
    """One line of the report; `remedy` is empty only for the level `ok`."""

    level: Level
    check: str
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding("ok", check, found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """Return a finding about a part that works, but maybe not for long or not as expected."""
    return Finding("warn", check, found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """Return a finding about a part that does not work."""
    return Finding("fail", check, found, remedy)
