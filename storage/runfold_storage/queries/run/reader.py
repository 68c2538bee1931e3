"""Read one run from the database, and from the archive what retention has expired.

The database comes first: it knows which runs were deleted.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import UUID

from runfold.protocol.ids import run_key
from runfold.protocol.streams import shard_of
from runfold_storage.checkpoints.positions import count_shards
from runfold_storage.errors import ArchiveUnusable
from runfold_storage.ledger.run_keys import may_be_run
from runfold_storage.postgres.connections import ReadConnection

from . import sql
from .detail import PayloadState, RunDetail, RunRecord, make_detail, read_run
from .events import EventPage, EventQuery, read_events

if TYPE_CHECKING:  # needs pyarrow, which is optional
    from runfold_storage.archive.store import Archive

Snapshot = Callable[[], AbstractContextManager[ReadConnection]]
RunKey = tuple[int, UUID]
"""A run's shard and key."""
log = logging.getLogger(__name__)


class RunReader:
    """Thread-safe; opens the archive on first use."""

    def __init__(self, snapshot: Snapshot, archive_url: str | None) -> None:
        self._snapshot = snapshot
        self._archive_url = archive_url
        self._opened: Archive | None = None
        self._opening = Lock()
        self._shards = 0

    def details(self, run: str) -> RunDetail | None:
        """Return a run; None if it is unknown, or was deleted."""
        with self._snapshot() as connection:
            location = self.locate(connection, run)
            stored = None if location is None else read_run(connection, *location)
            is_archived = stored is None and self._may_be_archived(connection, run, location)
        if stored is not None:
            if stored.row.is_expired:
                return self._with_archived_payloads(stored, run)
            return make_detail(*stored)
        if not is_archived:
            return None
        from .archived import read_archived_run

        return read_archived_run(self._archive(), run)

    def events(self, query: EventQuery) -> EventPage | None:
        """Return a page of a run's events; None if the run is unknown, or was deleted."""
        with self._snapshot() as connection:
            location = self.locate(connection, query.run)
            page, is_expired = None, False
            if location is not None and (row := _find(connection, sql.IS_EXPIRED, location)):
                page, is_expired = read_events(connection, *location, query), row[0]
            is_archived = page is None and self._may_be_archived(connection, query.run, location)
        if not is_archived and not (is_expired and self._archive_url is not None):
            return page
        from runfold_storage.archive.lookup import has_run

        from .archived import read_archived_events

        archive = self._archive()
        if is_archived and not has_run(archive, query.run):
            return None
        return read_archived_events(archive, query) or page or EventPage([], None, None)

    def find(self, connection: ReadConnection, run: str) -> RunKey | None:
        """Return the shard and key of a run; None if the database does not have it."""
        location = self.locate(connection, run)
        is_known = location is not None and _find(connection, sql.IS_EXPIRED, location)
        return location if is_known else None

    def _with_archived_payloads(self, stored: RunRecord, run: str) -> RunDetail:
        """Return the details of a run whose payloads are deleted, or will be once archived."""
        payloads = stored.payloads
        where: PayloadState = "removed" if payloads.is_empty else "kept"
        if self._archive_url is not None:
            try:
                from .archived import read_archived_payloads

                archived = read_archived_payloads(self._archive(), run)
            except ArchiveUnusable as error:
                log.warning("the archive cannot be read", extra={"reason": str(error)})
                where = "unavailable" if payloads.is_empty else where
            else:
                if not archived.is_empty:
                    payloads, where = archived, "archived"
        removed_at = None if where == "kept" else stored.row.removed_at
        return make_detail(
            stored.row, stored.nodes, payloads, payloads=where, payloads_removed_at=removed_at
        )

    def locate(self, connection: ReadConnection, run: str) -> RunKey | None:
        """Return where a run would be; None if it is no run's id, or no worker has ever run."""
        if not may_be_run(run):
            return None
        if not self._shards:  # never changes once a worker has recorded it
            self._shards = count_shards(connection)
        return (shard_of(run, self._shards), run_key(run)) if self._shards else None

    def _may_be_archived(
        self, connection: ReadConnection, run: str, location: RunKey | None
    ) -> bool:
        """Return whether there is an archive, and this run was not deleted on request."""
        if self._archive_url is None or location is None:
            return self._archive_url is not None and may_be_run(run)
        return bool(_find(connection, sql.WAS_EXPIRY, location) != (False,))

    def _archive(self) -> "Archive":
        assert self._archive_url is not None
        with self._opening:
            if self._opened is None:
                self._opened = open_archive(self._archive_url)
            return self._opened


def _find(connection: ReadConnection, statement: str, location: RunKey) -> Any:
    return connection.execute(statement, {"shard": location[0], "run": location[1]}).fetchone()


def open_archive(url: str) -> "Archive":
    """Open an archive; raise `ArchiveUnusable`, also if pyarrow is missing."""
    try:
        from runfold_storage.archive import store
    except ImportError as error:
        raise ArchiveUnusable(
            f"RUNFOLD_ARCHIVE: needs pyarrow: pip install 'runfold[parquet]' ({error})"
        ) from error
    return store.open_archive(url)
