"""The options that filter runs, made from the catalogue of filters."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import datetime
from typing import Any, Final

from runfold_stack.terminal.formats import length
from runfold_storage.filters.catalogue import FILTERS, Kind

from .values import name, period


def add_filters(parser: ArgumentParser) -> None:
    """Add the options; a run must match all that are given."""
    group = parser.add_argument_group("filters, which may be combined")
    for each in FILTERS:
        hint = _HINTS.get(each.kind, "")
        group.add_argument(f"--{each.option_name}", help=each.help + hint, **_OPTIONS[each.kind])


def filters_of(arguments: Namespace, now: datetime) -> dict[str, Any]:
    """Return the given filters as `History.runs` takes them."""
    since, until = period(arguments, now)
    given = vars(arguments) | {"since": since, "until": until}
    values = {each.name: given[each.option_name.replace("-", "_")] for each in FILTERS}
    return {parameter: value for parameter, value in values.items() if value is not None}


def _length(text: str) -> float:
    milliseconds = length(text)
    if milliseconds is None:
        raise ArgumentTypeError(f"{text!r}: expected a length of time, as 250ms 90s 15m 2h 1d")
    return milliseconds


_OPTIONS: Final[dict[Kind, dict[str, Any]]] = {
    Kind.NAME: {"type": name},
    Kind.STATUSES: {"action": "append"},
    Kind.TAGS: {"action": "append", "metavar": "KEY=VALUE"},
    Kind.TIME: {"metavar": "TIME"},
    Kind.DURATION: {"type": _length, "metavar": "TIME"},
    Kind.COST: {"type": float, "metavar": "USD"},
    Kind.SEARCH: {"type": name, "metavar": "TEXT"},
    Kind.PAYLOAD: {"type": name, "metavar": "TEXT"},
}
_HINTS: Final = {
    Kind.STATUSES: "; may be repeated",
    Kind.TAGS: "; if repeated, with all of them",
    Kind.DURATION: ": 250ms 90s 15m 2h",
    Kind.PAYLOAD: " (runfold search)",
}
