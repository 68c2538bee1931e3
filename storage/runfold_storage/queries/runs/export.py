"""Exports: lists of any length, read a page at a time.

Each page continues after the key of the page before and has its own snapshot: an export of hours
must not hold a transaction open. Runs that arrive meanwhile are not included.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate
from typing import Any, Final

from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.summaries import (
    NODE_COLUMNS,
    NODE_ORDER,
    ExportedNode,
    RunSummary,
    node_facts_of,
    summary_of,
)
from runfold_storage.search.lookup import read_searched

from .planner import DEFAULT_LIMITS, ListLimits
from .sql import NEWEST_FIRST, KeysetPosition, export_page

Snapshot = Callable[[], AbstractContextManager[ReadConnection]]
ExportedRun = tuple[RunSummary, Sequence[ExportedNode]]


def read_pages(
    snapshot: Snapshot,
    run_filter: RunFilter,
    on_progress: Callable[[int], None] | None = None,
    *,
    with_nodes: bool,
    limits: ListLimits = DEFAULT_LIMITS,
) -> Iterator[list[ExportedRun]]:
    """Yield the runs, newest first, optionally with their node attempts by start.

    `on_progress` is called after each page with its number of runs. Any page may raise the errors
    of reading.
    """
    after = NEWEST_FIRST
    while True:
        with snapshot() as connection:
            if after == NEWEST_FIRST and run_filter.payload is not None:
                read_searched(connection, run_filter.project)  # raises if nothing is searched
            page_of = {"limit": limits.exported + 1, "offset": 0}
            parameters = run_filter.parameters() | after.parameters() | page_of
            rows = connection.execute(export_page(run_filter, after), parameters).fetchall()
            more = len(rows) > limits.exported
            page = rows[: limits.exported]
            if with_nodes:  # as many runs as have few enough nodes for memory, at least one
                sums = accumulate(row.nodes_total for row in page)
                page = page[: sum(1 for so_far in sums if so_far <= limits.exported_nodes) or 1]
                more = more or len(page) < len(rows)
            attempts = _read_nodes(connection, page) if with_nodes and page else {}
        if page:
            yield [(summary_of(row), attempts.get(row.run, ())) for row in page]
            if on_progress is not None:
                on_progress(len(page))
        if not more:
            return
        after = KeysetPosition((page[-1].created_at, page[-1].run))


def _read_nodes(connection: ReadConnection, rows: Sequence[Any]) -> dict[Any, list[ExportedNode]]:
    keys = {"shards": [row.shard for row in rows], "keys": [row.run for row in rows]}
    found: dict[Any, list[ExportedNode]] = defaultdict(list)
    for row in connection.execute(_NODES, keys):
        error = {"error_type": row.error_type, "error_message": row.error_message}
        found[row.run].append(ExportedNode(**node_facts_of(row), **error))
    return found


_NODES: Final = f"""
    SELECT {NODE_COLUMNS}
    FROM unnest(%(shards)s::smallint[], %(keys)s::uuid[]) AS keys (shard, run)
    JOIN nodes AS n ON n.shard = keys.shard AND n.run = keys.run ORDER BY {NODE_ORDER}
"""  # noqa: S608 - made of constants
