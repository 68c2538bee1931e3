"""Command line options as data: those that several commands share, and parsers of values."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from runfold.protocol.events import MAX_NAME
from runfold_storage.filters.catalogue import FILTERS, Kind

from .errors import USAGE, CommandFailed
from .terminal.formats import length, point_in_time


class Option(NamedTuple):
    """The arguments of `ArgumentParser.add_argument`."""

    words: tuple[str, ...]
    settings: dict[str, Any]


class Group(NamedTuple):
    """Options under a title of the help text; without a title, at most one may be given."""

    title: str | None
    options: tuple[Option, ...]


def option(*words: str, **settings: Any) -> Option:
    return Option(words, settings)


def one_of(*options: Option) -> Group:
    """Describe options that exclude each other."""
    return Group(None, options)


def add_options(parser: ArgumentParser, options: Iterable[Option | Group]) -> None:
    for each in options:
        if isinstance(each, Option):
            parser.add_argument(*each.words, **each.settings)
        else:
            group = parser.add_argument_group(each.title) if each.title else None
            target = group or parser.add_mutually_exclusive_group()
            for member in each.options:
                target.add_argument(*member.words, **member.settings)


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers within bounds."""

    def parse(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal()) or not lowest <= int(text) <= highest:
            raise ArgumentTypeError(f"{text!r}: choose a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def name(text: str) -> str:
    """Parse a name of 1 to 200 characters, such as a project's or a workflow's."""
    if not 1 <= len(text) <= MAX_NAME:
        raise ArgumentTypeError(f"{text[:20]!r}: 1 to {MAX_NAME} characters are allowed")
    return text


def _length(text: str) -> float:
    milliseconds = length(text)
    if milliseconds is None:
        raise ArgumentTypeError(f"{text!r}: expected a length of time, as 250ms 90s 15m 2h 1d")
    return milliseconds


_TIME: Final = ": RFC 3339, a date, or an age like 90s 15m 24h 7d 2w"
_BY_KIND: Final[dict[Kind, tuple[str, dict[str, Any]]]] = {
    Kind.NAME: ("", {"type": name}),
    Kind.STATUSES: ("; may be repeated", {"action": "append"}),
    Kind.TAGS: ("; if repeated, with all of them", {"action": "append", "metavar": "KEY=VALUE"}),
    Kind.TIME: (_TIME, {"metavar": "TIME"}),
    Kind.DURATION: (": 250ms 90s 15m 2h", {"type": _length, "metavar": "TIME"}),
    Kind.COST: ("", {"type": float, "metavar": "USD"}),
    Kind.SEARCH: ("", {"type": name, "metavar": "TEXT"}),
    Kind.PAYLOAD: (" (runfold search)", {"type": name, "metavar": "TEXT"}),
}


def limit(of: str, default: int, most: int) -> Option:
    text = f"maximum number of {of} ({default}; up to {most})"
    return option("--limit", type=whole_number(1, most), default=default, help=text)


JSON: Final = option("--json", action="store_true", help="print one JSON document")
PORT: Final = option("--port", type=whole_number(0, 65535), help="port of the API; 0: a free one")
HOST: Final = option("--host", help="address that the API listens on (RUNFOLD_API_HOST)")
PERIOD: Final = (
    option("--project", type=name, help="only this project"),
    option("--since", metavar="TIME", help=f"only from TIME on{_TIME}"),
    option("--until", metavar="TIME", help="only before TIME"),
)
WORKFLOW: Final = option("--workflow", type=name, help="only this workflow")
RUN_FILTERS: Final = Group(
    "filters, which may be combined",
    tuple(
        option(f"--{each.option_name}", help=each.help + hint, **settings)
        for each in FILTERS
        for hint, settings in [_BY_KIND[each.kind]]
    ),
)


def period(arguments: Namespace) -> tuple[datetime | None, datetime | None]:
    """Return `--since` and `--until`; raise `CommandFailed` unless the first is earlier."""
    now = datetime.now(UTC)
    since = point_in_time("--since", arguments.since, now)
    until = point_in_time("--until", arguments.until, now)
    if since is not None and until is not None and since >= until:
        raise CommandFailed("--until: must be later than --since", USAGE)
    return since, until


def filters_of(arguments: Namespace) -> dict[str, Any]:
    """Return the given `RUN_FILTERS` as `History.runs` takes them."""
    since, until = period(arguments)
    given = vars(arguments) | {"since": since, "until": until}
    values = {each.name: given[each.option_name.replace("-", "_")] for each in FILTERS}
    return {parameter: value for parameter, value in values.items() if value is not None}
