"""Write exported runs as CSV, NDJSON or Parquet, a chunk of bytes at a time.

CSV and Parquet are tables: one row per run or, with nodes, one row per node attempt, preceded by
columns of its run (a run without nodes has one row). NDJSON has one object per run, the summary of
lists; with nodes it contains `node_list`.

Spreadsheets interpret a text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return as a
formula, so CSV prefixes such a text with an apostrophe (OWASP, CSV Injection).
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from runfold_storage.errors import BadParameter
from runfold_storage.read_models.summaries import RunSummary

from .export import ExportedNode, ExportedRun

Rows = Iterable[list[ExportedRun]]
Write = Callable[[Rows, bool], Iterator[bytes]]

_TEXT, _TIME, _WHOLE, _NUMBER, _FLAG = "text", "time", "whole", "number", "flag"
RUN_COLUMNS: Final = {
    **dict.fromkeys(("id", "project", "workflow", "status"), _TEXT),
    "attempt": _WHOLE,
    **dict.fromkeys(("parent_run", "trigger_type", "user", "session", "tags"), _TEXT),
    **dict.fromkeys(("queued_at", "started_at", "finished_at"), _TIME),
    "duration_ms": _NUMBER,
    **dict.fromkeys(("input_tokens", "output_tokens"), _WHOLE),
    "cost_usd": _NUMBER,
    "exit_code": _WHOLE,
    **dict.fromkeys(("nodes_total", "nodes_completed", "nodes_failed"), _WHOLE),
    **dict.fromkeys(("error_type", "error_message", "error_node"), _TEXT),
    "incomplete": _FLAG,
}
"""Names and types; `tags` is a JSON object."""
NODE_COLUMNS: Final = {
    **dict.fromkeys(("run", "project", "workflow", "run_status"), _TEXT),
    **dict.fromkeys(("node", "name", "node_type"), _TEXT),
    "attempt": _WHOLE,
    **dict.fromkeys(("status", "parents"), _TEXT),
    **dict.fromkeys(("started_at", "finished_at"), _TIME),
    "duration_ms": _NUMBER,
    **dict.fromkeys(("input_tokens", "output_tokens"), _WHOLE),
    "cost_usd": _NUMBER,
    **dict.fromkeys(("error_type", "error_message"), _TEXT),
}
"""Names and types; `parents` is a JSON array."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_encode: Final = msgspec.json.Encoder().encode


def write_csv(pages: Rows, with_nodes: bool) -> Iterator[bytes]:
    """Write RFC 4180 in UTF-8, with a header; times in RFC 3339."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(NODE_COLUMNS if with_nodes else RUN_COLUMNS)
    yield _take(text)
    for page in pages:
        writer.writerows(map(_cells, _table(page, with_nodes)))
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
        _TEXT: pa.string(),
        _TIME: pa.timestamp("us", tz="UTC"),
        _WHOLE: pa.int64(),
        _NUMBER: pa.float64(),
        _FLAG: pa.bool_(),
    }
    columns = NODE_COLUMNS if with_nodes else RUN_COLUMNS
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    sink = _Sink()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        for page in pages:
            rows = list(_table(page, with_nodes))
            values = zip(*rows, strict=True)
            arrays = [
                pa.array(list(column), field.type)
                for column, field in zip(values, schema, strict=True)
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
            yield _run_row(run)
        elif nodes:
            for node in nodes:
                yield _node_row(run, node)
        else:
            row = (run.id, run.project, run.workflow, run.status)
            yield row + (None,) * (len(NODE_COLUMNS) - len(row))


def _run_row(run: RunSummary) -> tuple[Any, ...]:
    error = run.error
    return (
        *(run.id, run.project, run.workflow, run.status, run.attempt, run.parent_run),
        *(run.trigger_type, run.user, run.session),
        _encode(run.tags).decode() if run.tags else None,
        *(run.queued_at, run.started_at, run.finished_at, run.duration_ms),
        *(run.usage.input_tokens, run.usage.output_tokens, run.usage.cost_usd, run.exit_code),
        *(run.nodes.total, run.nodes.completed, run.nodes.failed),
        *((None, None, None) if error is None else (error.type, error.message, error.node)),
        run.incomplete,
    )


def _node_row(run: RunSummary, node: ExportedNode) -> tuple[Any, ...]:
    return (
        *(run.id, run.project, run.workflow, run.status),
        *(node.node, node.name, node.node_type, node.attempt, node.status),
        _encode(node.parents).decode() if node.parents else None,
        *(node.started_at, node.finished_at, node.duration_ms),
        *(node.usage.input_tokens, node.usage.output_tokens, node.usage.cost_usd),
        *(node.error_type, node.error_message),
    )


def _cells(row: tuple[Any, ...]) -> list[Any]:
    return [_cell(value) for value in row]


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
