"""Reads: runs, their details and events, statistics.

Each answer is one consistent snapshot, with a watermark that says how far the fold had come. Each
is bounded in size and time. Nothing is written. A `History` is thread-safe; it connects on the
first read and replaces broken connections.

    with History("postgresql://…") as history:
        page = history.runs(project="acme", status="failed")
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self, Unpack
from uuid import UUID

from runfold_storage.change_feed.reader import Changes, Cursor, FilterSet, read_changes, read_cursor
from runfold_storage.checkpoints.incidents import Incident, read_incidents
from runfold_storage.checkpoints.positions import Position, load_positions
from runfold_storage.filters.catalogue import FilterParameters
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.filters.validation import make_run_filter
from runfold_storage.ledger.events import count_dead_letters
from runfold_storage.postgres.connections import ReadTransactions
from runfold_storage.queries.run.detail import RunDetail, RunProgress, read_progress
from runfold_storage.queries.run.events import (
    EventKey,
    EventPage,
    EventParameters,
    make_event_query,
)
from runfold_storage.queries.run.reader import RunReader
from runfold_storage.queries.runs.export import read_pages
from runfold_storage.queries.runs.export_formats import FORMATS
from runfold_storage.queries.runs.pages import Page, make_page, read_runs
from runfold_storage.queries.runs.planner import DEFAULT_LIMITS, ListLimits
from runfold_storage.queries.stats.day_cache import DayCache
from runfold_storage.queries.stats.failures import (
    FailureParameters,
    Failures,
    make_failure_query,
    read_failures,
)
from runfold_storage.queries.stats.query import StatsParameters, make_stats_query
from runfold_storage.queries.stats.report import Stats, read_stats
from runfold_storage.queries.stats.workflows import (
    WorkflowPage,
    make_workflow_query,
    read_workflows,
)
from runfold_storage.read_models.summaries import RunPage, Watermark
from runfold_storage.read_models.watermarks import (
    fold_behind,
    missing_shards,
    parse_positions,
    read_watermark,
)

from .errors import FoldBehind
from .parameters import check_choice

TIMEOUT_S: Final = 15
MAX_WAIT_S: Final = 10
"""The longest wait of a reader for the fold."""
POLL_S: Final = 0.01


class History:
    """The reads of one database, and of the archive of what retention has deleted from it.

    Every method raises `BadParameter` for invalid parameters, `DatabaseUnreachable`,
    `SchemaOutdated` if tables are missing, and `ReadTooSlow` after `timeout_s`; reads of one run
    raise `ArchiveUnusable` if they need the archive and cannot read it.
    """

    def __init__(
        self,
        dsn: str,
        *,
        pool_size: int = 5,
        timeout_s: float = TIMEOUT_S,
        archive_url: str | None = None,
        list_limits: ListLimits = DEFAULT_LIMITS,
    ) -> None:
        self._snapshot = ReadTransactions(dsn, pool_size=pool_size, timeout_s=timeout_s)
        self._run_reader = RunReader(self._snapshot, archive_url)
        self._day_cache = DayCache()
        self._list_limits = list_limits

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; a later read opens new ones."""
        self._snapshot.close()

    def runs(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        offset: int = 0,
        **filters: Unpack[FilterParameters],
    ) -> RunPage:
        """Return runs that match all filters (`make_run_filter`), newest first by first event.

        `cursor` is the `next_cursor` or `prev_cursor` of a page with the same filters. `searched`
        says which payloads a search covered.
        """
        run_filter = make_run_filter(**filters)
        page = make_page(run_filter, limit, offset, cursor)
        with self._snapshot() as connection:
            return read_runs(connection, run_filter, page, self._list_limits)

    def export(
        self,
        format: str,  # noqa: A002, the contract's word
        *,
        nodes: bool = False,
        on_progress: Callable[[int], None] | None = None,
        **filters: Unpack[FilterParameters],
    ) -> Iterator[bytes]:
        """Return the runs that match the filters of `runs` as `csv`, `ndjson` or `parquet`.

        With `nodes`, include their node attempts. `on_progress` is called with the number of runs
        of each page. Filters are checked at once; any chunk may raise the errors of reading.
        """
        check_choice("format", format, FORMATS)
        run_filter = make_run_filter(**filters)
        pages = read_pages(
            self._snapshot, run_filter, on_progress, with_nodes=nodes, limits=self._list_limits
        )
        return FORMATS[format][1](pages, nodes)

    def run(self, run: str) -> RunDetail | None:
        """Return one run, also from the archive, with nodes and payloads; None if it is unknown."""
        return self._run_reader.details(run)

    def events(self, run: str, **parameters: Unpack[EventParameters]) -> EventPage | None:
        """Return the run's events by (time, id), or only those of a node; None if it is unknown.

        `types` is one or several; `after` is the `next_cursor` of another page, `before` a
        `prev_cursor`; `tail` reads the last page; `limit` is 200 by default. With a node, a page
        may hold fewer, even none, and continue.
        """
        return self._run_reader.events(make_event_query(run, **parameters))

    def logs(self, run: str, **options: Any) -> EventPage | None:
        """Return the run's `logged` events; the other arguments are those of `events`."""
        return self.events(run, types="logged", **options)

    def stats(self, **parameters: Unpack[StatsParameters]) -> Stats:
        """Return the figures of the runs whose first event lies in `since` ≤ time < `until`.

        Both bounds are widened to whole hours, and returned widened. By default the span ends with
        the present hour or day; it never begins before the year 2000. `bucket` is hour, day, week
        or month, the last three in the time zone `tz`, or minute for up to six hours. `group_by` is
        workflow, project, status, node (attempts instead of runs) or error_type (failed runs only).
        """
        query = make_stats_query(now=datetime.now(UTC), **parameters)
        with self._snapshot() as connection:
            return read_stats(connection, query, self._day_cache)

    def failures(self, **parameters: Unpack[FailureParameters]) -> Failures:
        """Return failed runs and node attempts, grouped by likeness, most frequent first.

        They ended in `since` ≤ time < `until`. `runs(fingerprint=…)` lists the runs of a group.
        """
        query = make_failure_query(**parameters)
        with self._snapshot() as connection:
            return read_failures(connection, query)

    def workflows(
        self, *, project: str | None = None, limit: int = 200, cursor: str | None = None
    ) -> WorkflowPage:
        """Return all workflows by name, with the figures of all their runs."""
        query = make_workflow_query(project=project, limit=limit, cursor=cursor)
        with self._snapshot() as connection:
            return read_workflows(connection, query)

    def feed_cursor(self) -> Cursor:
        """Return the position of the change feed: the newest change of each shard."""
        with self._snapshot() as connection:
            return read_cursor(connection)

    def changes(self, after: Cursor, filters: FilterSet) -> tuple[Changes, list[Any]] | None:
        """Return the changes after a cursor, with rows; None if a `snapshot` is needed instead."""
        with self._snapshot() as connection:
            changes = read_changes(connection, after)
            if changes is None:
                return None
            return changes, filters.read(connection, changes.changed)

    def snapshot(self, run_filter: RunFilter, limit: int) -> tuple[Cursor, RunPage]:
        """Return the newest runs of a filter, and the position of the change feed."""
        with self._snapshot() as connection:
            cursor = read_cursor(connection)
            return cursor, read_runs(connection, run_filter, Page(limit), self._list_limits)

    def live_state(self, run: str, after: EventKey | None = None) -> RunProgress | None:
        """Return a run's state, and its output after a key, or its newest; None if unknown."""
        with self._snapshot() as connection:
            location = self._run_reader.locate(connection, run)
            return None if location is None else read_progress(connection, *location, after)

    def locate(self, run: str) -> tuple[int, UUID] | None:
        """Return the shard and key of a run; None if the database does not have it."""
        with self._snapshot() as connection:
            return self._run_reader.find(connection, run)

    def watermark(self) -> Watermark:
        """Return how far the fold has come."""
        with self._snapshot() as connection:
            return read_watermark(connection)

    def wait_for(self, position: Mapping[str, str] | str, *, timeout_s: float = MAX_WAIT_S) -> None:
        """Return once the fold has reached a position; raise `FoldBehind` after `timeout_s`.

        `position` is the one in the answer to a write, as a mapping or as text.
        """
        text = position if isinstance(position, str) else json.dumps(dict(position))
        wanted = parse_positions("position", text)
        until = time.monotonic() + timeout_s
        while missing := missing_shards(wanted, self.positions()):
            if time.monotonic() >= until:
                raise FoldBehind(fold_behind(missing, timeout_s))
            time.sleep(POLL_S)

    def incidents(self) -> list[Incident]:
        """Return the incidents (what must not happen and did), the latest first."""
        with self._snapshot() as connection:
            return read_incidents(connection.execute)

    def positions(self) -> dict[int, Position]:
        """Return the checkpoint of each shard."""
        with self._snapshot() as connection:
            return load_positions(connection)

    def count_dead_letters(self) -> int:
        """Return the number of events and frames that could not be decoded."""
        with self._snapshot() as connection:
            return count_dead_letters(connection)

    def revision(self) -> str | None:
        """Return the revision of the database's schema."""
        with self._snapshot() as connection:
            row = connection.execute("SELECT version_num FROM alembic_version LIMIT 1").fetchone()
        return row and str(row.version_num)
