"""Write exported runs as CSV, NDJSON or Parquet, a chunk of bytes at a time.

CSV and Parquet have one row per run or, with nodes, one per node attempt (or run without nodes),
preceded by columns of its run. NDJSON has one summary per run, with nodes in `node_list`.

Spreadsheets interpret a text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return as a
formula, so CSV prefixes such a text with an apostrophe (OWASP, CSV Injection).
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from runfold_storage.errors import BadParameter
from runfold_storage.read_models.summaries import ErrorSummary

from .export import ExportedRun

Rows = Iterable[list[ExportedRun]]
Write = Callable[[Rows, bool], Iterator[bytes]]

_RUN: Final = (
    *("id", "project", "workflow", "status", "attempt", "parent_run", "trigger_type", "user"),
    *("session", "tags", "queued_at", "started_at", "finished_at", "duration_ms"),
    *("usage.input_tokens", "usage.output_tokens", "usage.cost_usd", "exit_code"),
    *("nodes.total", "nodes.completed", "nodes.failed"),
    *("error.type", "error.message", "error.node", "incomplete"),
)
_NODE: Final = (
    *("node", "name", "node_type", "attempt", "status", "parents"),
    *("started_at", "finished_at", "duration_ms"),
    *("usage.input_tokens", "usage.output_tokens", "usage.cost_usd"),
    *("error_type", "error_message"),
)
# The paths of the values in `RunSummary` and `ExportedNode`.


def _names(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(path.removeprefix("usage.").replace(".", "_") for path in paths)


RUN_COLUMNS: Final = _names(_RUN)
"""`tags` is a JSON object."""
NODE_COLUMNS: Final = ("run", "project", "workflow", "run_status", *_names(_NODE))
"""`parents` is a JSON array."""

_run_values: Final = attrgetter(*_RUN)
_node_values: Final = attrgetter(*_NODE)
_NO_ERROR: Final = ErrorSummary()
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_encode: Final = msgspec.json.Encoder().encode


def write_csv(pages: Rows, with_nodes: bool) -> Iterator[bytes]:
    """Write RFC 4180 in UTF-8, with a header; times in RFC 3339."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(NODE_COLUMNS if with_nodes else RUN_COLUMNS)
    yield _take(text)
    for page in pages:
        writer.writerows(map(_cell, row) for row in _table(page, with_nodes))
        yield _take(text)


def write_ndjson(pages: Rows, with_nodes: bool) -> Iterator[bytes]:
    """Write one JSON object per line."""
    for page in pages:
        lines = []
        for run, nodes in page:
            line = _encode(run)
            if with_nodes:
                line = line[:-1] + b',"node_list":' + _encode(nodes) + b"}"
            lines.append(line + b"\n")
        yield b"".join(lines)


def write_parquet(pages: Rows, with_nodes: bool) -> Iterator[bytes]:
    """Write Parquet with Zstandard, one row group per page, timestamps in microseconds UTC."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise BadParameter(
            "format", "parquet needs pyarrow: pip install 'runfold[parquet]', or take csv or ndjson"
        ) from None
    kinds = {
        **dict.fromkeys(("queued_at", "started_at", "finished_at"), pa.timestamp("us", tz="UTC")),
        **dict.fromkeys(("attempt", "exit_code", "input_tokens", "output_tokens"), pa.int64()),
        **dict.fromkeys(("nodes_total", "nodes_completed", "nodes_failed"), pa.int64()),
        **dict.fromkeys(("duration_ms", "cost_usd"), pa.float64()),
        "incomplete": pa.bool_(),
    }
    columns = NODE_COLUMNS if with_nodes else RUN_COLUMNS
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    sink = _Sink()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        for page in pages:
            values = zip(*_table(page, with_nodes), strict=True)
            arrays = [
                pa.array(column, field.type) for column, field in zip(values, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield sink.take()
    yield sink.take()


FORMATS: Final[dict[str, tuple[str, Write]]] = {
    "csv": ("text/csv", write_csv),
    "ndjson": ("application/x-ndjson", write_ndjson),
    "parquet": ("application/vnd.apache.parquet", write_parquet),
}
"""Media type and writer by the name of the format, which is also the file extension."""


class _Sink(io.RawIOBase):
    """Collects what was written since the last `take`."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _table(page: list[ExportedRun], with_nodes: bool) -> Iterator[tuple[Any, ...]]:
    for run, nodes in page:
        if not with_nodes:
            given = run if run.error is not None else replace(run, error=_NO_ERROR)
            yield tuple(map(_as_text, _run_values(given)))
            continue
        of_run = (run.id, run.project, run.workflow, run.status)
        for node in nodes:
            yield of_run + tuple(map(_as_text, _node_values(node)))
        if not nodes:
            yield of_run + (None,) * len(_NODE)


def _as_text(value: Any) -> Any:
    """Return tags and parents as JSON, if there are any."""
    if not isinstance(value, dict | list):
        return value
    return _encode(value).decode() if value else None


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _take(text: io.StringIO) -> bytes:
    piece = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return piece
