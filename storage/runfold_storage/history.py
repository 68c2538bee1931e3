"""Reads: runs, their details and events, statistics.

Promises: each answer is one consistent snapshot with a watermark that says how far it goes, each
has a bounded size and a bounded time, and nothing is ever written. A `History` may be shared by
threads; it opens no connection before the first read, and a connection that breaks is replaced.

    with History("postgresql://…") as history:
        page = history.runs(project="acme", status="failed")
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from sqlalchemy import Connection, func, select, text

from runfold_storage.checkpoints.incidents import Incident, read_incidents
from runfold_storage.checkpoints.positions import Position
from runfold_storage.filters.validation import make_run_filter
from runfold_storage.postgres.connections import ReadTransactions
from runfold_storage.queries.run.detail import RunDetail
from runfold_storage.queries.run.events import EventPage, make_event_query
from runfold_storage.queries.run.reader import RunReader
from runfold_storage.queries.runs.export import ExportedRun, read_pages
from runfold_storage.queries.runs.export_formats import FORMATS
from runfold_storage.queries.runs.pages import make_page, read_runs
from runfold_storage.queries.stats.day_cache import DayCache
from runfold_storage.queries.stats.failures import Failures, make_failure_query, read_failures
from runfold_storage.queries.stats.query import make_stats_query
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
    read_positions,
    read_watermark,
)

from .errors import FoldBehind
from .parameters import check_choice
from .tables import dead_letters

TIMEOUT_S: Final = 15
MAX_WAIT_S: Final = 10
"""For the fold to come as far as a reader wants."""
POLL_S: Final = 0.01

Answer = TypeVar("Answer")


class History:
    """The reads of one database, and of the archive of what retention took away from it.

    Every method raises `BadParameter` for what cannot be asked, `DatabaseUnreachable`,
    `SchemaOutdated` when tables are missing, and `ReadTooSlow` after `timeout_s`; those of one run
    `ArchiveUnusable`, where the archive has to be asked and does not answer.
    """

    def __init__(
        self,
        dsn: str,
        *,
        pool_size: int = 5,
        timeout_s: float = TIMEOUT_S,
        archive_url: str | None = None,
    ) -> None:
        self._snapshot = ReadTransactions(dsn, pool_size=pool_size, timeout_s=timeout_s)
        self._one_run = RunReader(self._snapshot, archive_url)
        self._day_cache = DayCache()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; the next read would open new ones."""
        self._snapshot.close()

    def runs(
        self,
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
        limit: int = 50,
        cursor: str | None = None,
        offset: int = 0,
    ) -> RunPage:
        """Runs, newest first by their first event; `started_after` ≤ start < `started_before`.

        A `tag` is `key:value` or `key=value`; a run must have all that are given. `cursor` is the
        `next_cursor` or the `prev_cursor` of a page with the same filters. `q` is a text in the
        workflow, the id, the tags, or the error's type or message; `payload` is one in the inputs
        or outputs, of projects that have those searched: the page's `searched` says how far.
        """
        wanted = make_run_filter(
            project=project,
            workflow=workflow,
            status=status,
            trigger=trigger,
            user=user,
            session=session,
            tag=tag,
            started_after=started_after,
            started_before=started_before,
            min_duration_ms=min_duration_ms,
            max_duration_ms=max_duration_ms,
            min_cost_usd=min_cost_usd,
            max_cost_usd=max_cost_usd,
            error_type=error_type,
            fingerprint=fingerprint,
            parent_run=parent_run,
            q=q,
            payload=payload,
        )
        page = make_page(wanted, limit, offset, cursor)
        with self._snapshot() as connection:
            return read_runs(connection, wanted, page)

    def export(
        self,
        format: str,  # noqa: A002, the contract's word
        *,
        nodes: bool = False,
        seen: Callable[[int], None] | None = None,
        **filters: Any,
    ) -> Iterator[bytes]:
        """The runs of these filters, those of `runs`, as `csv`, `ndjson` or `parquet`, in pieces.

        With `nodes`, their attempts at nodes too. `seen` is told how many runs were read each time
        that some were. Filters are checked at once; reading may fail between any two pieces.
        """
        check_choice("format", format, FORMATS)
        wanted = make_run_filter(**filters)
        pages = read_pages(self._snapshot, wanted, with_nodes=nodes)
        return FORMATS[format][1](pages if seen is None else _told(pages, seen), nodes)

    def run(self, run: str) -> RunDetail | None:
        """One run with its nodes and payloads; None for a run that is not known.

        Where `archive_url` is given, also one that retention has taken away (`source`).
        """
        return self._one_run.details(run)

    def events(
        self,
        run: str,
        *,
        types: str | Iterable[str] | None = None,
        node: str | None = None,
        after: str | None = None,
        before: str | None = None,
        tail: bool = False,
        limit: int = 200,
    ) -> EventPage | None:
        """The run's events by (time, id), or only those that name a node; None if it is not known.

        `after` is the `next_cursor` of another page, `before` a `prev_cursor`; with `tail` the
        page is the last one. With a node it may hold fewer than `limit`, even none, and go on.
        """
        query = make_event_query(
            run, types=types, node=node, after=after, before=before, tail=tail, limit=limit
        )
        return self._one_run.events(query)

    def logs(self, run: str, **options: Any) -> EventPage | None:
        """The run's `logged` events; the other arguments are those of `events`."""
        return self.events(run, types="logged", **options)

    def stats(
        self,
        *,
        project: str | None = None,
        workflow: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        bucket: str | None = None,
        group_by: str | None = None,
        tz: str | None = None,
    ) -> Stats:
        """Figures of the runs whose first event lies in `since` ≤ time < `until`.

        Both bounds are widened to whole hours, and returned so. Without `until` they end with the
        present hour or day, and never begin before the year 2000. `bucket`: hour, day, week or
        month, the last three in the time zone `tz`; or minute, for up to six hours; at most
        `MAX_BUCKETS` of them. `group_by`:
        workflow, project, status; node, which counts attempts at nodes instead of runs; or
        error_type, which counts failed runs alone.
        """
        query = make_stats_query(
            project=project,
            workflow=workflow,
            since=since,
            until=until,
            bucket=bucket,
            group_by=group_by,
            tz=tz,
            now=datetime.now(UTC),
        )
        with self._snapshot() as connection:
            return read_stats(connection, query, self._day_cache)

    def failures(
        self,
        *,
        project: str | None = None,
        workflow: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
    ) -> Failures:
        """Failed runs and attempts at nodes in groups that failed alike, the most frequent first.

        Those that ended in `since` ≤ time < `until`; `runs(fingerprint=…)` lists a group's runs.
        """
        query = make_failure_query(
            project=project, workflow=workflow, since=since, until=until, limit=limit
        )
        with self._snapshot() as connection:
            return read_failures(connection, query)

    def workflows(
        self, *, project: str | None = None, limit: int = 200, cursor: str | None = None
    ) -> WorkflowPage:
        """Every workflow, by name, with the figures of all its runs."""
        query = make_workflow_query(project=project, limit=limit, cursor=cursor)
        with self._snapshot() as connection:
            return read_workflows(connection, query)

    def read(self, question: Callable[[Connection], Answer]) -> Answer:
        """Ask several things of one snapshot, as the feed of changes does."""
        with self._snapshot() as connection:
            return question(connection)

    def watermark(self) -> Watermark:
        """How far the fold has come."""
        with self._snapshot() as connection:
            return read_watermark(connection)

    def wait_for(self, position: Mapping[str, str] | str, *, timeout_s: float = MAX_WAIT_S) -> None:
        """Return once the fold has come so far; raises `FoldBehind` after `timeout_s`.

        `position` is what a write was answered with, as a mapping or as text.
        """
        text = position if isinstance(position, str) else json.dumps(dict(position))
        wanted = parse_positions("position", text)
        until = time.monotonic() + timeout_s
        while missing := missing_shards(wanted, self.positions()):
            if time.monotonic() >= until:
                raise FoldBehind(fold_behind(missing, timeout_s))
            time.sleep(POLL_S)

    def incidents(self) -> list[Incident]:
        """What must not happen and did, the latest first."""
        with self._snapshot() as connection:
            return read_incidents(connection.exec_driver_sql)

    def positions(self) -> dict[int, Position]:
        """The checkpoint of each shard."""
        with self._snapshot() as connection:
            return read_positions(connection)

    def count_dead_letters(self) -> int:
        """Events and frames that could not be understood."""
        with self._snapshot() as connection:
            return connection.execute(select(func.count()).select_from(dead_letters)).scalar_one()

    def revision(self) -> str | None:
        """The revision of the database's schema."""
        with self._snapshot() as connection:
            found = connection.execute(text("SELECT version_num FROM alembic_version LIMIT 1"))
            return found.scalar_one_or_none()

    def find(self, connection: Connection, run: str) -> tuple[int, UUID] | None:
        """The shard and key of a run that the database has."""
        return self._one_run.find(connection, run)


def _told(
    pages: Iterable[list[ExportedRun]], seen: Callable[[int], None]
) -> Iterator[list[ExportedRun]]:
    for page in pages:
        yield page
        seen(len(page))
