"""The selection of runs that a list, an export or a deletion is about: in SQL, and in Python for
rows that are not stored yet. Both decide alike; a test compares them."""

from collections.abc import Callable
from datetime import datetime
from operator import eq, ge, le, lt
from typing import Any, Final

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb

from runfold_storage.records.rows import RunRow
from runfold_storage.tables import runs

from .catalogue import FILTERS, Filter, Kind
from .search_text import pattern_of

COLUMNS: Final = ", ".join(
    f'r."{column.name}"'
    for column in runs.c
    if column.name not in ("last_event_at", "change_seq", "payloads_expired_at")
    and (column.computed is None or column.name == "fingerprint")
)
"""What lists show, and all that filters compare, as SQL over the runs `r`."""

RUNS_AT_KEYS: Final = """
    runs AS r
    JOIN unnest(%(shards)s::smallint[], %(keys)s::uuid[]) AS keys (shard, run)
    ON r.shard = keys.shard AND r.run = keys.run
"""
"""The runs at the keys in the parameters `shards` and `keys`, lists of equal length."""


class RunFilter(Struct, frozen=True, omit_defaults=True):
    """A selection of runs in stored units, made by `make_run_filter`; an empty one means all."""

    project: str | None = None
    workflow: str | None = None
    statuses: tuple[str, ...] = ()
    trigger: str | None = None
    user: str | None = None
    session: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    started_after: datetime | None = None
    started_before: datetime | None = None
    min_duration_us: int | None = None
    max_duration_us: int | None = None
    min_cost_nano_usd: int | None = None
    max_cost_nano_usd: int | None = None
    error_type: str | None = None
    fingerprint: str | None = None
    parent_run: str | None = None
    q: str | None = None
    payload: str | None = None

    @property
    def is_counted(self) -> bool:
        """Whether the rollups know the number of these runs."""
        return self == self.counted()

    @property
    def has_text(self) -> bool:
        """Whether there is a text to search for."""
        return self.q is not None or self.payload is not None

    def counted(self) -> "RunFilter":
        """Return the part of the filter that the rollups can count."""
        return RunFilter(project=self.project, workflow=self.workflow, statuses=self.statuses)

    def without_texts(self) -> "RunFilter":
        """Return the filter without the texts to search for."""
        return msgspec.structs.replace(self, q=None, payload=None)

    def cache_key(self) -> bytes:
        """Return bytes that identify this filter, for its cursors."""
        return b"runs" + msgspec.json.encode(self)

    def given(self) -> list[tuple[Filter, Any]]:
        """Return the filters that have a value, each with it."""
        values = [(each, getattr(self, field)) for field, each in _BY_FIELD.items()]
        return [(each, value) for each, value in values if value is not None and value != ()]

    def conditions(self, of: str = "runs", *, prefix: str = "") -> list[str]:
        """Return SQL conditions over `of`; their parameters are those of `parameters`."""
        return [_condition(each, value, of, prefix) for each, value in self.given()]

    def parameters(self, *, prefix: str = "") -> dict[str, Any]:
        """Return the values of the parameters of `conditions`, for psycopg."""
        found: dict[str, Any] = {}
        for each, value in self.given():
            match each.kind:
                case Kind.STATUSES:
                    found |= {f"status_{n}": status for n, status in enumerate(value)}
                case Kind.TAGS:
                    found["tags"] = Jsonb(dict(value))
                case Kind.SEARCH:
                    found["q"] = pattern_of(value)
                    if (tag := tag_of(value)) is not None:
                        found["q_tag"] = Jsonb(tag)
                case Kind.PAYLOAD:
                    found["payload"] = pattern_of(value)
                case _:
                    found[each.stored_as] = value
        return {prefix + name: value for name, value in found.items()} if prefix else found


def tag_of(q: str) -> dict[str, str] | None:
    """Return the tag that a search text may denote, such as `env:prod` or `env=prod`."""
    key, separator, value = q.partition(":") if ":" in q else q.partition("=")
    return {key: value} if separator and key else None


_BY_FIELD: Final = {each.stored_as: each for each in FILTERS}
_TYPES: Final = {
    Kind.NAME: "text",
    Kind.TIME: "timestamptz",
    Kind.DURATION: "bigint",
    Kind.COST: "bigint",
}


def _condition(each: Filter, value: Any, of: str, prefix: str) -> str:
    """Return the SQL of one filter; all values are parameters."""

    def given(name: str, type_: str) -> str:
        return f"%({prefix}{name})s::{type_}"

    match each.kind:
        case Kind.STATUSES:
            statuses = ", ".join(given(f"status_{n}", "text") for n in range(len(value)))
            return f"{of}.status IN ({statuses})"
        case Kind.TAGS:
            return f"{of}.tags @> {given('tags', 'jsonb')}"
        case Kind.SEARCH:
            tag = None if tag_of(value) is None else given("q_tag", "jsonb")
            return _search_condition(of, given("q", "text"), tag)
        case Kind.PAYLOAD:
            return _payload_condition(of, given("payload", "text"))
        case kind:
            bound = given(each.stored_as, _TYPES[kind])
            return f'{of}."{each.column_name}" {each.operator} {bound}'


def _search_condition(of: str, pattern: str, tag: str | None) -> str:
    """Search texts of a run, all of which the search index contains (`search_text.RUN_TEXT`)."""
    texts = (
        f"{of}.workflow",
        f"{of}.external_id",
        f"{of}.run::text",
        f"{of}.tags::text",
        f"{of}.error_type",
        f"{of}.error_message",
    )
    found = [f"lower({each}) LIKE lower({pattern})" for each in texts]
    if tag is not None:
        found.append(f"{of}.tags @> {tag}")
    return f"({' OR '.join(found)})"


def _payload_condition(of: str, pattern: str) -> str:
    """Search the indexed inputs and outputs, of projects that enable it."""
    return f"""EXISTS (
        SELECT FROM search_payloads AS texts
        JOIN search_projects AS projects ON projects.project = texts.project
        WHERE texts.shard = {of}.shard AND texts.run = {of}.run AND projects.enabled
          AND texts.text LIKE lower({pattern})
    )"""


Match = Callable[[RunRow], bool]
_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {"=": eq, ">=": ge, "<=": le, "<": lt}


def match_of(run_filter: RunFilter) -> Match | None:
    """Return a function that matches rows; None if only PostgreSQL can: texts, fingerprints."""
    given = run_filter.given()
    if any(not hasattr(RunRow, each.column_name) for each, _ in given):
        return None
    checks = [_check(each, value) for each, value in given]
    return lambda row: all(check(row) for check in checks)


def _check(each: Filter, value: Any) -> Match:
    if each.kind is Kind.STATUSES:
        return lambda row: row.status in value
    if each.kind is Kind.TAGS:
        tags = dict(value)
        return lambda row: row.tags is not None and tags.items() <= row.tags.items()
    column, compare = each.column_name, _OPERATORS[each.operator]

    def check(row: RunRow) -> bool:
        own = getattr(row, column)
        return own is not None and bool(compare(own, value))

    return check
