"""The catalogue of run filters: one entry each.

SQL (`run_filter`), validation, the row matcher, the query parameters of the API and the options of
the CLI derive from it. A new filter is an entry here, a field of `RunFilter` and a key of
`FilterParameters`; it scans an index if `queries.runs.index_scans` names one.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import Enum, auto
from typing import Final, NamedTuple, TypedDict


class Kind(Enum):
    """The type of a filter's values."""

    NAME = auto()
    STATUSES = auto()
    TAGS = auto()
    TIME = auto()
    DURATION = auto()
    COST = auto()
    SEARCH = auto()
    PAYLOAD = auto()


_FIELDS: Final = {Kind.STATUSES: "statuses", Kind.TAGS: "tags"}
_COLUMNS: Final = {
    Kind.TAGS: "tags",
    Kind.TIME: "started_at",
    Kind.DURATION: "duration_us",
    Kind.COST: "cost_nano_usd",
}


class Filter(NamedTuple):
    """One filter of runs: `column operator value`, unless its kind has a condition of its own."""

    name: str
    """The parameter of `History.runs` and of the API."""
    kind: Kind
    phrase: str
    """Which runs it selects, after `only runs`."""
    operator: str = "="
    option: str = ""
    """The option of the CLI; by default the name."""
    column: str = ""
    """The column of `runs`; by default that of the kind, or the name."""
    note: str = ""
    """Further sentences for the description in the API."""

    @property
    def help(self) -> str:
        """A description that starts with `only runs`."""
        return f"only runs {self.phrase}"

    @property
    def stored_as(self) -> str:
        """The field of `RunFilter`; bounds are stored in the units of their columns."""
        if self.kind in (Kind.DURATION, Kind.COST):
            return f"{self.name[:3]}_{self.column_name}"
        return _FIELDS.get(self.kind, self.name)

    @property
    def column_name(self) -> str:
        """The column of `runs`."""
        return self.column or _COLUMNS.get(self.kind, self.name)

    @property
    def option_name(self) -> str:
        """The option of the CLI, without its dashes."""
        return self.option or self.name.replace("_", "-")


class FilterParameters(TypedDict, total=False):
    """The filters as keyword arguments; None is the same as leaving one out."""

    project: str | None
    workflow: str | None
    status: str | Iterable[str] | None
    trigger: str | None
    user: str | None
    session: str | None
    tag: str | Iterable[str] | None
    started_after: datetime | None
    started_before: datetime | None
    min_duration_ms: float | None
    max_duration_ms: float | None
    min_cost_usd: float | None
    max_cost_usd: float | None
    error_type: str | None
    fingerprint: str | None
    parent_run: str | None
    q: str | None
    payload: str | None


FILTERS: Final = (
    Filter("project", Kind.NAME, "of this project"),
    Filter("workflow", Kind.NAME, "of this workflow"),
    Filter("status", Kind.STATUSES, "with this status"),
    Filter("trigger", Kind.NAME, "with this type of trigger", column="trigger_type"),
    Filter("user", Kind.NAME, "of this user"),
    Filter("session", Kind.NAME, "of this session"),
    Filter("tag", Kind.TAGS, "with this tag, key:value or key=value"),
    Filter("started_after", Kind.TIME, "that started at this time or later", ">=", "since"),
    Filter("started_before", Kind.TIME, "that started before this time", "<", "until"),
    Filter("min_duration_ms", Kind.DURATION, "that took at least this long", ">=", "min-duration"),
    Filter("max_duration_ms", Kind.DURATION, "that took at most this long", "<=", "max-duration"),
    Filter(
        "min_cost_usd", Kind.COST, "that cost at least this much, in US dollars", ">=", "min-cost"
    ),
    Filter(
        "max_cost_usd", Kind.COST, "that cost at most this much, in US dollars", "<=", "max-cost"
    ),
    Filter("error_type", Kind.NAME, "that failed with this type of error"),
    Filter(
        "fingerprint",
        Kind.NAME,
        "that failed alike, by the fingerprint that lists of failures show",
    ),
    Filter("parent_run", Kind.NAME, "that this run started"),
    Filter(
        "q",
        Kind.SEARCH,
        "with this text in their workflow, id, tags, error type or message",
        option="search",
        note="Case does not matter.",
    ),
    Filter(
        "payload",
        Kind.PAYLOAD,
        "with this text in their inputs or outputs, in projects that enable this search",
        note="Case does not matter. Covers the first 4096 characters of finished runs; `searched` "
        "says which. Only for lists and exports.",
    ),
)
