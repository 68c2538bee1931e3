"""Parsers for the values of options that several commands share."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from datetime import datetime

from runfold.protocol.events import MAX_NAME
from runfold_stack.exit_codes import USAGE, CommandFailed
from runfold_stack.terminal.formats import point_in_time


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers within bounds."""

    def parse(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal()) or not lowest <= int(text) <= highest:
            raise ArgumentTypeError(f"{text!r}: choose a whole number from {lowest} to {highest}")
        return int(text)

    return parse


port_number = whole_number(0, 65535)


def name(text: str) -> str:
    """Parse a name of 1 to 200 characters, such as a project's or a workflow's."""
    if not 1 <= len(text) <= MAX_NAME:
        raise ArgumentTypeError(f"{text[:20]!r}: 1 to {MAX_NAME} characters are allowed")
    return text


def period(arguments: Namespace, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return `--since` and `--until`; raise `CommandFailed` unless the first is earlier."""
    since = point_in_time("--since", arguments.since, now)
    until = point_in_time("--until", arguments.until, now)
    if since is not None and until is not None and since >= until:
        raise CommandFailed("--until: must be later than --since", USAGE)
    return since, until
