"""Describes where the tables differ from a refold, for people and as JSON."""

from collections.abc import Iterator
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

from runfold.protocol.codec import to_rfc3339
from runfold_storage.projections.row_store import RunRows
from runfold_storage.records.rollup import RollupKey, RollupValues
from runfold_storage.records.rows import RunRow, column_of
from runfold_storage.rollups.recompute import Rollups

from .refold import RefoldResult

What = Literal["missing", "surplus", "differs", "unreadable"]
Table = Literal["events", "runs", "nodes", "rollups_hourly", "rollups_daily"]


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

    table: Table
    what: What
    shard: int
    of: dict[str, Any]
    fields: list[Field] = []
    reason: str | None = None


def compare_run(shard: int, key: bytes, refolded: RefoldResult, stored: RunRows) -> list[Mismatch]:
    """Return all mismatches of a run's rows; [] if they are right."""
    if refolded.is_aged:
        return []
    expected = refolded.rows.row
    of = {"run": name_of(key, expected or stored.row)}
    if refolded.unreadable is not None:
        return [Mismatch("events", "unreadable", shard, of, reason=refolded.unreadable)]
    if expected is not None and stored.row is not None:
        latest_us = max(expected.last_event_us, stored.row.last_event_us)
        expected = expected._replace(last_event_us=latest_us)
    found = _compare("runs", shard, of, stored.row, expected)
    nodes = refolded.rows.nodes
    for attempt in sorted(nodes.keys() | stored.nodes.keys()):
        of_node = of | {"node": attempt[0], "attempt": attempt[1]}
        found += _compare("nodes", shard, of_node, stored.nodes.get(attempt), nodes.get(attempt))
    return found


def compare_rollups(found: Rollups, expected: Rollups) -> Iterator[tuple[RollupKey, Mismatch]]:
    """Yield all mismatches of statistics, with their keys."""
    for key in sorted(found.keys() | expected.keys()):
        of = {"workflow": key.workflow, "project": key.project, "node": key.node or None}
        of |= {"hour": to_rfc3339(key.hour_us), "status": key.status}
        was, should = found.get(key), expected.get(key)
        for mismatch in _compare("rollups_hourly", key.shard, of, was, should):
            yield key, mismatch


def name_of(key: bytes, row: RunRow | None) -> str:
    """Return the run's id as its caller gave it, if that is known."""
    return str(UUID(bytes=key)) if row is None or row.external_id is None else row.external_id


def _compare(
    table: Table, shard: int, of: dict[str, Any], found: Any, expected: Any
) -> list[Mismatch]:
    """Compare two rows; None: there is no such row."""
    if found == expected:
        return []
    if found is None or expected is None:
        return [Mismatch(table, "missing" if found is None else "surplus", shard, of)]
    is_rollup = isinstance(found, RollupValues)
    fields = []
    for name in RollupValues.__slots__ if is_rollup else found._fields:
        was, should = getattr(found, name), getattr(expected, name)
        if was != should:
            column = name if is_rollup else column_of(name)
            fields.append(
                Field(column, *(_shown(v, is_time=column != name) for v in (was, should)))
            )
    return [Mismatch(table, "differs", shard, of, fields)]


def _shown(value: Any, is_time: bool) -> Any:
    if value is None or not is_time:
        return value
    try:
        return to_rfc3339(value)
    except OverflowError:
        return f"{value} µs after 1970"
