"""Describes where the tables differ from a refold, for people and as JSON.

`last_event_at` may be later than in the refold, because the ledger keeps no heartbeats; it is
never earlier.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

from runfold.protocol.codec import to_rfc3339
from runfold_storage.projections.row_store import RunRows
from runfold_storage.records.rollup import RollupKey, RollupValues
from runfold_storage.records.rows import NodeRow, RunRow
from runfold_storage.rollups.daily_check import Day
from runfold_storage.rollups.recompute import Rollups

from .refold import RefoldResult

What = Literal["missing", "surplus", "differs", "unreadable"]


class Field(Struct, frozen=True):
    """One column with a wrong value."""

    name: str
    found: Any
    expected: Any


class Mismatch(Struct, frozen=True):
    """One wrong row; `of` identifies it in its table.

    `missing`: the row should exist; `surplus`: it should not; `differs`: `fields` are wrong;
    `unreadable`: an event of the run in the ledger cannot be read, so the row cannot be checked.
    """

    table: Literal["events", "runs", "nodes", "rollups_hourly", "rollups_daily"]
    what: What
    shard: int
    of: dict[str, Any]
    fields: list[Field] = []
    reason: str | None = None


def compare_run(shard: int, key: bytes, refolded: RefoldResult, stored: RunRows) -> list[Mismatch]:
    """Return all mismatches of a run's rows; [] if they are right."""
    if refolded.is_aged:
        return []
    of = {"run": name_of(key, refolded.rows.row or stored.row)}
    if refolded.unreadable is not None:
        return [Mismatch("events", "unreadable", shard, of, reason=refolded.unreadable)]
    expected, found = refolded.rows, stored
    differences: list[Mismatch] = []
    wanted = expected.row
    if wanted is not None and found.row is not None:
        wanted = wanted._replace(last_event_us=max(wanted.last_event_us, found.row.last_event_us))
    differences += _compare("runs", shard, of, found.row, wanted)
    for attempt in sorted(expected.nodes.keys() | found.nodes.keys()):
        of_node = of | {"node": attempt[0], "attempt": attempt[1]}
        was, should = found.nodes.get(attempt), expected.nodes.get(attempt)
        differences += _compare("nodes", shard, of_node, was, should)
    return differences


def wrong_day(day: Day) -> Mismatch:
    """Return the mismatch of a day that is not the sum of its hours."""
    shard, start_us = day
    return Mismatch("rollups_daily", "differs", shard, {"day": to_rfc3339(start_us)})


def compare_rollups(found: Rollups, expected: Rollups) -> Iterator[tuple[RollupKey, Mismatch]]:
    """Yield all mismatches of statistics, with their keys."""
    for key in sorted(found.keys() | expected.keys()):
        was, should = found.get(key), expected.get(key)
        if was == should:
            continue
        of = {
            "workflow": key.workflow,
            "project": key.project,
            "node": key.node or None,
            "hour": to_rfc3339(key.hour_us),
            "status": key.status,
        }
        if was is None or should is None:
            what: What = "missing" if was is None else "surplus"
            yield key, Mismatch("rollups_hourly", what, key.shard, of)
        else:
            yield (
                key,
                Mismatch("rollups_hourly", "differs", key.shard, of, list(_figures(was, should))),
            )


def name_of(key: bytes, row: RunRow | None) -> str:
    """Return the run's id as its caller gave it, if that is known."""
    return str(UUID(bytes=key)) if row is None or row.external_id is None else row.external_id


def _compare(
    table: Literal["runs", "nodes"],
    shard: int,
    of: dict[str, Any],
    found: RunRow | NodeRow | None,
    expected: RunRow | NodeRow | None,
) -> Iterator[Mismatch]:
    if found == expected:
        return
    if found is None or expected is None:
        yield Mismatch(table, "missing" if found is None else "surplus", shard, of)
        return
    fields = [
        Field(_column(name), _shown(name, was), _shown(name, should))
        for name, was, should in zip(found._fields, found, expected, strict=True)
        if was != should
    ]
    yield Mismatch(table, "differs", shard, of, fields)


def _figures(found: RollupValues, expected: RollupValues) -> Iterable[Field]:
    for name in RollupValues.__slots__:
        was, should = getattr(found, name), getattr(expected, name)
        if was != should:
            yield Field(name, was, should)


def _column(name: str) -> str:
    if name.endswith("_us") and name != "duration_us":
        return name.removesuffix("_us") + "_at"
    return name


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, int) and _column(name) != name:
        return _time(value)
    return value


def _time(us: int) -> str:
    try:
        return to_rfc3339(us)
    except OverflowError:
        return f"{us} µs after 1970"
