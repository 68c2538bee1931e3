"""Administration of a history: delete runs, and read jobs.

Each call uses a connection of its own, so threads may share an `Admin`. A deletion of many runs
becomes a job, which a worker runs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct

from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.filters.validation import make_run_filter
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.retention.run_deletion import Deletion, ListKey

from . import jobs
from .errors import BadParameter
from .history import History
from .jobs import Job
from .parameters import check_choice, check_number
from .postgres import connections
from .retention import run_deletion

AT_ONCE: Final = 1000
"""The most runs that are deleted while the caller waits; more become a job."""
MAX_DAYS: Final = 36_500
MAX_JOBS: Final = 500
DELETE: Final = "delete"
"""The kind of deletion jobs."""


class Deleted(Struct, frozen=True):
    """How many runs were deleted."""

    deleted: int


class DeleteArguments(Struct, frozen=True, omit_defaults=True):
    """The arguments of a deletion job; `up_to` excludes runs that begin after the request."""

    deletion: Deletion
    up_to: ListKey
    runs: int
    """How many runs matched at the time of the request."""


class Admin:
    """Raises `BadParameter` for invalid parameters, `DatabaseUnreachable`, `SchemaOutdated`, and
    `ReadTooSlow` when a statement takes longer than `timeout_s`."""

    def __init__(
        self,
        dsn: str,
        *,
        at_once: int = AT_ONCE,
        timeout_s: float = 30,
        archive_url: str | None = None,
    ) -> None:
        self._dsn = dsn
        self._archive_url = archive_url
        self._at_once = at_once
        self._timeout_ms = round(timeout_s * 1000)

    def delete_run(self, run: str) -> bool:
        """Delete one run with all its events; False if there is none.

        A run that only the archive has (`archive_url`) gets a tombstone, which hides it.
        """
        with self._connection() as connection:
            prepare_session(connection)
            if run_deletion.delete_run(connection, run):
                return True
        if self._archive_url is None:
            return False
        with History(self._dsn, pool_size=1, archive_url=self._archive_url) as history:
            if history.run(run) is None:
                return False
        with self._connection() as connection:
            return run_deletion.add_archived_tombstone(connection, run)

    def delete_runs(
        self, *, older_than_days: int | None = None, everything: bool = False, **filters: Any
    ) -> Deleted | Job:
        """Delete the runs that match (filters as in `History.runs`), or create a job for that.

        `older_than_days`: only runs that ended at least that long ago; without an end, their last
        sign of life counts. Without any filter, `everything` must be True.
        """
        deletion = make_deletion(older_than_days, everything=everything, **filters)
        with self._connection() as connection:
            if run_deletion.count_runs(connection, deletion, self._at_once + 1) > self._at_once:
                return self._note_down(connection, deletion)
            prepare_session(connection)
            return Deleted(run_deletion.delete_runs(connection, deletion))

    def delete_now(
        self, deletion: Deletion, on_progress: Callable[[int], None], **options: Any
    ) -> int:
        """Delete all runs that match, without a job; `on_progress` gets the number of each page."""
        with self._connection() as connection:
            prepare_session(connection)
            return run_deletion.delete_runs(
                connection, deletion, on_progress=lambda n, _: on_progress(n), **options
            )

    def count(self, deletion: Deletion, most: int = 2**31 - 1) -> int:
        """Return how many runs would be deleted, at most `most`."""
        with self._connection() as connection:
            return run_deletion.count_runs(connection, deletion, most)

    def job(self, job_id: UUID) -> Job | None:
        """Return a job; None if there is none with this id."""
        with self._connection() as connection:
            return jobs.read_job(connection, job_id)

    def jobs(self, *, limit: int = 50, status: str | None = None) -> list[Job]:
        """Return the newest jobs first."""
        check_number("limit", limit, 1, MAX_JOBS)
        check_choice("status", status, jobs.STATUSES)
        with self._connection() as connection:
            return jobs.list_jobs(connection, limit, status=status)

    def _note_down(self, connection: psycopg.Connection, deletion: Deletion) -> Deleted | Job:
        up_to = run_deletion.newest_key(connection, deletion)
        if up_to is None:
            return Deleted(0)
        n = run_deletion.count_runs(connection, deletion, 2**31 - 1)
        arguments = DeleteArguments(deletion, up_to, n)
        job_id = jobs.add_job(connection, DELETE, msgspec.to_builtins(arguments), background=True)
        job = jobs.read_job(connection, job_id)
        assert job is not None
        return job

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection]:
        options = f"-c statement_timeout={self._timeout_ms} -c timezone=UTC"
        try:
            with connections.connect(
                self._dsn, autocommit=True, options=options, application_name="runfold-upkeep"
            ) as connection:
                yield connection
        except psycopg.Error as error:
            raise connections.explain(error) or error from error


def make_deletion(
    older_than_days: int | None = None, *, everything: bool = False, **filters: Any
) -> Deletion:
    """Return a validated deletion; raise `BadParameter`, also if no filter narrows it down."""
    wanted = make_run_filter(**filters)
    if wanted.payload is not None:
        raise BadParameter("payload", "only lists and exports take it: not all runs are searched")
    ended_before = None
    if older_than_days is not None:
        check_number("older_than_days", older_than_days, 1, MAX_DAYS)
        ended_before = datetime.now(UTC) - timedelta(days=older_than_days)
    narrowed = wanted != RunFilter() or ended_before is not None
    if not narrowed and not everything:
        raise BadParameter(
            "all", "without any filter all runs are meant: say all=true if that is so"
        )
    if narrowed and everything:
        raise BadParameter("all", "goes with no filter: leave it out, or the filters")
    return Deletion(wanted, ended_before)
