"""Which runs a list, an export or a deletion is about, and the same as SQL."""

from collections.abc import Callable
from datetime import UTC, datetime
from operator import ge, le, lt
from typing import Any, Final

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb
from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Text,
    bindparam,
    func,
    literal,
    or_,
)
from sqlalchemy.dialects.postgresql import JSONB

from runfold_storage.tables import COSTLY_NANO_USD, LONG_US, runs
from runfold_storage.tables.columns import TIME

from .search_text import pattern_of, payload_condition


class RunFilter(Struct, frozen=True, omit_defaults=True):
    """Which runs are meant; an empty one means all. Lengths and money as they are stored."""

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
        """Whether the rollups know how many there are."""
        return self == self.counted()

    def counted(self) -> "RunFilter":
        """As much of it as the rollups know."""
        return RunFilter(project=self.project, workflow=self.workflow, statuses=self.statuses)

    def without_texts(self) -> "RunFilter":
        """The rest of it."""
        return msgspec.structs.replace(self, q=None, payload=None)

    def cache_key(self) -> bytes:
        """The same bytes for the same filter, for its cursors."""
        return b"runs" + msgspec.json.encode(self)

    def form(self) -> "FilterForm":
        """What the statements for it depend on."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return FilterForm(
            **{
                name: _FORMS[name](value) if value is not None and name in _FORMS else value
                for name, value in given.items()
            }
        )

    def parameters(self) -> dict[str, Any]:
        """What the statements of its form are given, as the driver takes it."""
        values = self._values()
        return values | {name: Jsonb(values[name]) for name in ("tags", "q_tag") if name in values}

    def conditions(self, of: Any = runs.c, *, prefix: str = "") -> list[ColumnElement[bool]]:
        """As SQL over `runs`, or over what has its columns.

        Parameters have the names of the fields, behind the prefix.
        """
        values = self._values()
        return self._conditions(
            of, lambda name: bindparam(prefix + name, values[name], _TYPES.get(name, Text))
        )

    def _values(self) -> dict[str, Any]:
        given = ((name, getattr(self, name)) for name in self.__struct_fields__)
        found = {name: value for name, value in given if value is not None}
        found["tags"] = dict(self.tags)
        if self.q is not None:
            found |= {"q": pattern_of(self.q), "q_tag": tag_of(self.q)}
        if self.payload is not None:
            found["payload"] = pattern_of(self.payload)
        return found

    def _conditions(
        self, of: Any, given: Callable[[str], BindParameter[Any]]
    ) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = [
            of[column] == given(name)
            for name, column in EQUAL.items()
            if getattr(self, name) is not None
        ]
        if self.statuses:
            found.append(of.status.in_(list(map(literal, self.statuses))))
        if self.tags:
            found.append(of.tags.contains(given("tags")))
        found += [
            compare(of[column], given(name))
            for name, (column, compare) in BOUNDS.items()
            if getattr(self, name) is not None
        ]
        if self.q is not None:
            tag = None if tag_of(self.q) is None else given("q_tag")
            found.append(_search(of, given("q"), tag))
        if self.payload is not None:
            found.append(payload_condition(of, given("payload")))
        return found

    @property
    def has_text(self) -> bool:
        """Whether there is a text to search for."""
        return self.q is not None or self.payload is not None


class FilterForm(RunFilter, frozen=True):
    """What filters have in common whose statements differ in nothing but parameters.

    Statuses are those that are meant, and part of a statement; of all other fields it says that
    they are given, and no more than their statements have to know.
    """

    def conditions(self, of: Any = runs.c, *, prefix: str = "") -> list[ColumnElement[bool]]:
        """The same with parameters that have no value: a statement without them is refused."""
        return self._conditions(
            of, lambda name: bindparam(prefix + name, type_=_TYPES.get(name, Text))
        )


def tag_of(q: str) -> dict[str, str] | None:
    """The tag that a text to search for may be, as `env:prod` and `env=prod`."""
    key, separator, value = q.partition(":") if ":" in q else q.partition("=")
    return {key: value} if separator and key else None


EQUAL: Final = {
    "project": "project",
    "workflow": "workflow",
    "trigger": "trigger_type",
    "user": "user",
    "session": "session",
    "error_type": "error_type",
    "fingerprint": "fingerprint",
    "parent_run": "parent_run",
}
"""Fields that a column must equal, and which."""

BOUNDS: Final[dict[str, tuple[str, Callable[[Any, Any], Any]]]] = {
    "min_duration_us": ("duration_us", ge),
    "max_duration_us": ("duration_us", le),
    "min_cost_nano_usd": ("cost_nano_usd", ge),
    "max_cost_nano_usd": ("cost_nano_usd", le),
    "started_after": ("started_at", ge),
    "started_before": ("started_at", lt),
}
"""Fields that bound a column, which one, and how."""

_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("min_duration_us", "max_duration_us"), BigInteger),
    **dict.fromkeys(("min_cost_nano_usd", "max_cost_nano_usd"), BigInteger),
    **dict.fromkeys(("started_after", "started_before"), TIME),
    **dict.fromkeys(("tags", "q_tag"), JSONB),
}
"""Of parameters; the others are texts."""

_SOME_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FORMS: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(EQUAL, lambda _: ""),
    "tags": lambda tags: (("", ""),) if tags else (),
    "started_after": lambda _: _SOME_TIME,
    "started_before": lambda _: _SOME_TIME,
    # Indexes have those that are long, or costly.
    "min_duration_us": lambda least: LONG_US if least >= LONG_US else 0,
    "max_duration_us": lambda _: 0,
    "min_cost_nano_usd": lambda least: COSTLY_NANO_USD if least >= COSTLY_NANO_USD else 0,
    "max_cost_nano_usd": lambda _: 0,
    "q": lambda q: "" if tag_of(q) is None else "a:b",
    "payload": lambda _: "",
}
"""What stands for any value of a field that makes the same SQL; the others stand for themselves."""


def _search(
    of: Any, pattern: ColumnElement[str], tag: ColumnElement[Any] | None
) -> ColumnElement[bool]:
    """A text in the workflow, the id, a key or value of the tags, the error's type or message.

    What is searched for here is what `search_texts` puts into the index.
    """
    texts = (
        of.workflow,
        of.external_id,
        func.text(of.run),
        func.text(of.tags),
        of.error_type,
        of.error_message,
    )
    found = [func.lower(text).like(func.lower(pattern)) for text in texts]
    if tag is not None:
        found.append(of.tags.contains(tag))
    return or_(*found)
