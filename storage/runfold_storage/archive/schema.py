"""The columns of each kind of file, named like those of the tables.

`key` is the run's key, by which files are sorted; `run` is its id. Times are microseconds UTC,
money is in nano-dollars, `body` and `tags` are JSON.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
import pyarrow as pa
import sqlalchemy as sa

from runfold_storage.records.rollup import ROLLUP_VALUES
from runfold_storage.records.rows import NodeRow, RunRow, column_of
from runfold_storage.tables import nodes, runs

from .layout import EVENTS, NODES, RUNS, STATS, TOMBSTONES

_KEY: Final = pa.binary(16)
_TIME: Final = pa.timestamp("us", tz="UTC")
_WHOLE: Final = pa.int64()
_TEXT: Final = pa.string()


def _fields(table: sa.Table, names: Iterable[str]) -> list[tuple[str, Any]]:
    """Return the columns of these fields of `RunRow` or `NodeRow`, after the key and the id."""
    found: list[tuple[str, Any]] = [("key", _KEY), ("run", _TEXT)]
    for column in (table.c[column_of(name)] for name in names if name != "run"):
        kind = _TEXT
        if isinstance(column.type, sa.Integer):
            kind = _WHOLE
        elif isinstance(column.type, sa.DateTime):
            kind = _TIME
        elif isinstance(column.type, sa.ARRAY):
            kind = pa.list_(_TEXT)
        found.append((column.name, kind))
    return found


SCHEMAS: Final[dict[str, Any]] = {
    EVENTS: pa.schema(
        [
            *(("key", _KEY), ("run", _TEXT), ("shard", _WHOLE), ("id", _WHOLE)),
            *(("at", _TIME), ("type", _TEXT), ("body", _TEXT)),
        ]
    ),
    RUNS: pa.schema(_fields(runs, RunRow._fields)),
    NODES: pa.schema(_fields(nodes, NodeRow._fields)),
    STATS: pa.schema(
        [
            ("key", _KEY),
            ("shard", _WHOLE),
            *((name, _TEXT) for name in ("workflow", "project", "node")),
            ("hour", _TIME),
            ("status", _TEXT),
            *((name, _WHOLE) for name in ROLLUP_VALUES[:4]),
            *((name, pa.decimal128(38)) for name in ROLLUP_VALUES[4:-2]),
            ("bins", pa.list_(pa.int16())),
            ("bin_counts", pa.list_(_WHOLE)),
        ]
    ),
    TOMBSTONES: pa.schema([("key", _KEY), ("shard", _WHOLE), ("deleted_at", _TIME)]),
}

_encode: Final = msgspec.json.Encoder().encode


def table_of(kind: str, rows: Sequence[tuple[Any, ...]]) -> Any:
    """Return an Arrow table of rows whose values are in the order of the columns."""
    schema = SCHEMAS[kind]
    columns = zip(*rows, strict=True)
    arrays = [
        pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def to_row(run_id: str, row: RunRow | NodeRow) -> tuple[Any, ...]:
    """Return the values of a run or node in the order of the columns."""
    values = (
        _encode(value).decode() if name == "tags" and value is not None else value
        for name, value in zip(row._fields, row, strict=True)
        if name != "run"
    )
    return (row.run, run_id, *values)


def to_run(row: dict[str, Any]) -> RunRow:
    """Return the run of a row of a file, whose times are numbers (`as_numbers`)."""
    run = RunRow._make(_values(RunRow._fields, row))
    return run if run.tags is None else run._replace(tags=msgspec.json.decode(row["tags"]))


def to_node(row: dict[str, Any]) -> NodeRow:
    """Return the node of a row of a file, whose times are numbers (`as_numbers`)."""
    return NodeRow._make(_values(NodeRow._fields, row))


def _values(fields: Iterable[str], row: dict[str, Any]) -> Iterator[Any]:
    return (row["key" if name == "run" else column_of(name)] for name in fields)


def as_numbers(table: Any) -> Any:
    """Return the table with times as microseconds."""
    fields = [
        pa.field(field.name, _WHOLE) if pa.types.is_timestamp(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def name_of(key: bytes, external_id: str | None) -> str:
    """Return the run's id."""
    return str(UUID(bytes=key)) if external_id is None else external_id
