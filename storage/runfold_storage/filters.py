"""Which runs a list, an export or a deletion is about, and the same as SQL.

Every check raises `BadParameter` with the parameter's name and what is allowed, so that nothing
that a caller can write reaches the database as an error.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb
from sqlalchemy import BindParameter, ColumnElement, bindparam, func, literal, or_

from .errors import BadParameter
from .parameters import check_choice, check_name, check_storable, check_time, shown
from .search_texts import pattern_of, payload_condition
from .tables import COSTLY_NANO_USD, LONG_US, RUN_STATUSES, runs

MAX_TAG: Final = 2000
MAX_TAGS: Final = 20
MAX_BOUND: Final = 1_000_000_000


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
        return self == RunFilter(
            project=self.project, workflow=self.workflow, statuses=self.statuses
        )

    def without_texts(self) -> "RunFilter":
        """The rest of it."""
        return msgspec.structs.replace(self, q=None, payload=None)

    def question(self) -> bytes:
        """The same bytes for the same filter, for its cursors."""
        return b"runs" + msgspec.json.encode(self)

    def form(self) -> "RunFilter":
        """The one that stands for all whose statements differ in nothing but parameters."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return RunFilter(
            **{
                name: _FORMS[name](value) if value is not None and name in _FORMS else value
                for name, value in given.items()
            }
        )

    def parameters(self) -> dict[str, Any]:
        """What the conditions are given, as the driver takes it; statuses are part of the form."""
        values = self._values()
        return values | {name: Jsonb(values[name]) for name in ("tags", "q_tag") if name in values}

    def _values(self) -> dict[str, Any]:
        given = ((name, getattr(self, name)) for name in self.__struct_fields__)
        found = {name: value for name, value in given if value is not None}
        found["tags"] = dict(self.tags)
        if self.q is not None:
            found |= {"q": pattern_of(self.q), "q_tag": tag_of(self.q)}
        if self.payload is not None:
            found["payload"] = pattern_of(self.payload)
        return found

    def conditions(self, of: Any = runs.c, *, prefix: str = "") -> list[ColumnElement[bool]]:
        """As SQL over `runs`, or over what has its columns.

        Parameters have the names of the fields behind the prefix, so that a statement that was made
        for one filter serves all of its form.
        """
        values = self._values()

        def given(name: str) -> BindParameter[Any]:
            return bindparam(prefix + name, values[name])

        found: list[ColumnElement[bool]] = [
            of[column] == given(name)
            for name, column in _EQUAL.items()
            if getattr(self, name) is not None
        ]
        if self.statuses:
            found.append(of.status.in_(list(map(literal, self.statuses))))
        if self.tags:
            found.append(of.tags.contains(given("tags")))
        for name, condition in _BOUNDS.items():
            if getattr(self, name) is not None:
                found.append(condition(of, given(name)))
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


def tag_of(q: str) -> dict[str, str] | None:
    """The tag that a text to search for may be, as `env:prod` and `env=prod`."""
    key, separator, value = q.partition(":") if ":" in q else q.partition("=")
    return {key: value} if separator and key else None


_EQUAL: Final = {
    "project": "project",
    "workflow": "workflow",
    "trigger": "trigger_type",
    "user": "user",
    "session": "session",
    "error_type": "error_type",
    "fingerprint": "fingerprint",
    "parent_run": "parent_run",
}
"""Fields that a column must equal."""

_BOUNDS: Final[dict[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "min_duration_us": lambda of, bound: of.duration_us >= bound,
    "max_duration_us": lambda of, bound: of.duration_us <= bound,
    "min_cost_nano_usd": lambda of, bound: of.cost_nano_usd >= bound,
    "max_cost_nano_usd": lambda of, bound: of.cost_nano_usd <= bound,
    "started_after": lambda of, bound: of.started_at >= bound,
    "started_before": lambda of, bound: of.started_at < bound,
}

_SOME_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FORMS: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(_EQUAL, lambda _: ""),
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
        of.given_id,
        func.text(of.run),
        func.text(of.tags),
        of.error_type,
        of.error_message,
    )
    found = [func.lower(text).like(func.lower(pattern)) for text in texts]
    if tag is not None:
        found.append(of.tags.contains(tag))
    return or_(*found)


def make_run_filter(
    *,
    project: str | None = None,
    workflow: str | None = None,
    status: str | Iterable[str] | None = None,
    trigger: str | None = None,
    user: str | None = None,
    session: str | None = None,
    tag: str | Iterable[str] | None = None,
    started_after: datetime | None = None,
    started_before: datetime | None = None,
    min_duration_ms: float | None = None,
    max_duration_ms: float | None = None,
    min_cost_usd: float | None = None,
    max_cost_usd: float | None = None,
    error_type: str | None = None,
    fingerprint: str | None = None,
    parent_run: str | None = None,
    q: str | None = None,
    payload: str | None = None,
) -> RunFilter:
    """A checked filter: `started_after` and all the `min_` and `max_` are inclusive.

    `started_before` is exclusive; a `tag` is `key:value` or `key=value`, and a run must have all.
    `q` is searched for in workflow, id, tags, type and message of the error; `payload` in inputs
    and outputs, of projects whose payloads are searched; case does not matter.
    """
    after = check_time("started_after", started_after)
    before = check_time("started_before", started_before)
    if after is not None and before is not None and after >= before:
        raise BadParameter("started_before", "must be later than started_after")
    return RunFilter(
        project=check_name("project", project),
        workflow=check_name("workflow", workflow),
        statuses=_check_statuses(status),
        trigger=check_name("trigger", trigger),
        user=check_name("user", user),
        session=check_name("session", session),
        tags=_check_tags(tag),
        started_after=after,
        started_before=before,
        **_check_bounds("duration_ms", min_duration_ms, max_duration_ms, "duration_us", 1000),
        **_check_bounds("cost_usd", min_cost_usd, max_cost_usd, "cost_nano_usd", 10**9),
        error_type=check_name("error_type", error_type),
        fingerprint=check_name("fingerprint", fingerprint),
        parent_run=check_name("parent_run", parent_run),
        q=check_name("q", q),
        payload=check_name("payload", payload),
    )


def _check_statuses(status: str | Iterable[str] | None) -> tuple[str, ...]:
    if status is None:
        return ()
    wanted = {status} if isinstance(status, str) else set(status)
    for value in sorted(wanted, key=str):
        check_choice("status", value, RUN_STATUSES)
    return () if wanted.issuperset(RUN_STATUSES) else tuple(sorted(wanted))


def _check_tags(tag: str | Iterable[str] | None) -> tuple[tuple[str, str], ...]:
    if tag is None:
        return ()
    given = [tag] if isinstance(tag, str) else list(tag)
    wanted: dict[str, str] = {}
    for text in given:
        key, separator, value = _tag_of(text)
        if not separator or not key or len(text) > MAX_TAG:
            raise BadParameter("tag", f"expected key:value or key=value, got {shown(text)}")
        check_storable("tag", text)
        if wanted.setdefault(key, value) != value:
            raise BadParameter("tag", f"no run has two values of {shown(key)}")
    if len(wanted) > MAX_TAGS:
        raise BadParameter("tag", f"at most {MAX_TAGS} of them")
    return tuple(sorted(wanted.items()))


def _tag_of(text: Any) -> tuple[str, str, str]:
    """A key may have a colon if an equals sign follows it, as `aws:region=eu` has."""
    if not isinstance(text, str):
        return "", "", ""
    return text.partition("=" if "=" in text else ":")


def _check_bounds(
    name: str, least: float | None, most: float | None, stored: str, unit: int
) -> dict[str, int | None]:
    bounds: dict[str, int | None] = {}
    for side, value in (("min", least), ("max", most)):
        bounds[f"{side}_{stored}"] = None
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= MAX_BOUND:
            raise BadParameter(f"{side}_{name}", f"expected 0 to {MAX_BOUND:,}, got {shown(value)}")
        bounds[f"{side}_{stored}"] = round(value * unit)
    if least is not None and most is not None and least > most:
        raise BadParameter(f"max_{name}", f"must not be less than min_{name}")
    return bounds
