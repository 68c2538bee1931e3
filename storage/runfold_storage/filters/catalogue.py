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


class Filter(NamedTuple):
    """One filter of runs: `column operator value`, unless its kind has a condition of its own."""

    name: str
    """The parameter of `History.runs` and of the API."""
    kind: Kind
    help: str
    """A phrase that starts with `only runs`."""
    field: str = ""
    """The field of `RunFilter`; by default the name."""
    column: str = ""
    """The column of `runs`; by default the name."""
    operator: str = "="
    option: str = ""
    """The option of the CLI; by default the name."""
    note: str = ""
    """Further sentences for the description in the API."""
    is_derived: bool = False
    """Whether PostgreSQL computes the column, so that a row in memory lacks it."""

    @property
    def stored_as(self) -> str:
        """The field of `RunFilter`."""
        return self.field or self.name

    @property
    def column_name(self) -> str:
        """The column of `runs`."""
        return self.column or self.name

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
    Filter("project", Kind.NAME, "only runs of this project"),
    Filter("workflow", Kind.NAME, "only runs of this workflow"),
    Filter("status", Kind.STATUSES, "only runs with this status", field="statuses"),
    Filter("trigger", Kind.NAME, "only runs with this type of trigger", column="trigger_type"),
    Filter("user", Kind.NAME, "only runs of this user"),
    Filter("session", Kind.NAME, "only runs of this session"),
    Filter(
        "tag",
        Kind.TAGS,
        "only runs with this tag, key:value or key=value",
        field="tags",
        column="tags",
    ),
    Filter(
        "started_after",
        Kind.TIME,
        "only runs that started at this time or later",
        column="started_at",
        operator=">=",
        option="since",
    ),
    Filter(
        "started_before",
        Kind.TIME,
        "only runs that started before this time",
        column="started_at",
        operator="<",
        option="until",
    ),
    Filter(
        "min_duration_ms",
        Kind.DURATION,
        "only runs that took at least this long",
        field="min_duration_us",
        column="duration_us",
        operator=">=",
        option="min-duration",
    ),
    Filter(
        "max_duration_ms",
        Kind.DURATION,
        "only runs that took at most this long",
        field="max_duration_us",
        column="duration_us",
        operator="<=",
        option="max-duration",
    ),
    Filter(
        "min_cost_usd",
        Kind.COST,
        "only runs that cost at least this much, in US dollars",
        field="min_cost_nano_usd",
        column="cost_nano_usd",
        operator=">=",
        option="min-cost",
    ),
    Filter(
        "max_cost_usd",
        Kind.COST,
        "only runs that cost at most this much, in US dollars",
        field="max_cost_nano_usd",
        column="cost_nano_usd",
        operator="<=",
        option="max-cost",
    ),
    Filter("error_type", Kind.NAME, "only runs that failed with this type of error"),
    Filter(
        "fingerprint",
        Kind.NAME,
        "only runs that failed alike, by the fingerprint that lists of failures show",
        is_derived=True,
    ),
    Filter("parent_run", Kind.NAME, "only runs that this run started"),
    Filter(
        "q",
        Kind.SEARCH,
        "only runs with this text in their workflow, id, tags, error type or message",
        option="search",
        note="Case does not matter.",
    ),
    Filter(
        "payload",
        Kind.PAYLOAD,
        "only runs with this text in their inputs or outputs, in projects that enable this search",
        note="Case does not matter. Covers the first 4096 characters of finished runs; `searched` "
        "says which. Only for lists and exports.",
    ),
)
