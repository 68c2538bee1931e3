"""The reads of one run: from the database, and what retention took away from the archive.

The database comes first: it knows what was deleted. The archive is asked when no connection is held
any more, for it may be far away; a run of the database is shown without its payloads where the
archive cannot be read.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, select

from runfold.protocol.ids import run_key
from runfold.protocol.streams import shard_of
from runfold_storage.errors import ArchiveUnusable
from runfold_storage.ledger.run_keys import may_be_run
from runfold_storage.read_models.watermarks import count_shards
from runfold_storage.tables import runs, tombstones

from .detail import Kept, RunDetail, RunRecord, make_detail, read_run
from .events import EventPage, EventQuery, read_events

if TYPE_CHECKING:  # it needs pyarrow, which need not be there
    from runfold_storage.archive.store import Archive

Snapshot = Callable[[], AbstractContextManager[Connection]]
Place = tuple[int, UUID]
"""A run's shard and key."""
log = logging.getLogger(__name__)


class RunReader:
    """May be shared by threads; the archive is opened when it is first asked."""

    def __init__(self, snapshot: Snapshot, archive_url: str | None) -> None:
        self._snapshot = snapshot
        self._archive_url = archive_url
        self._opened: Archive | None = None
        self._opening = Lock()
        self._shards = 0

    def details(self, run: str) -> RunDetail | None:
        """None for a run that is not known, or was deleted."""
        with self._snapshot() as connection:
            place = self._place(connection, run)
            stored = None if place is None else read_run(connection, *place)
            is_archived = stored is None and self._may_be_archived(connection, run, place)
        if stored is not None:
            return self._aged(stored, run) if stored.is_aged else make_detail(*stored)
        if not is_archived:
            return None
        from .archived import read_archived_run

        return read_archived_run(self._archive(), run)

    def events(self, query: EventQuery) -> EventPage | None:
        """A page of the run's events; None for a run that is not known, or was deleted."""
        with self._snapshot() as connection:
            place = self._place(connection, query.run)
            page, is_aged = None, False
            if place is not None and (row := _row(connection, place, _IS_AGED)) is not None:
                page, is_aged = read_events(connection, *place, query), row[0]
            is_archived = page is None and self._may_be_archived(connection, query.run, place)
        if not is_archived and not (is_aged and self._archive_url is not None):
            return page
        from runfold_storage.archive.lookup import has_run

        from .archived import read_archived_events

        archive = self._archive()
        if is_archived and not has_run(archive, query.run):
            return None
        return read_archived_events(archive, query) or page or EventPage([], None, None)

    def find(self, connection: Connection, run: str) -> Place | None:
        """The shard and key of a run that the database has."""
        place = self._place(connection, run)
        if place is None or _row(connection, place, runs.c.run) is None:
            return None
        return place

    def _aged(self, stored: RunRecord, run: str) -> RunDetail:
        """One whose payloads have gone, or go as soon as they are archived."""
        payloads = stored.payloads
        where: Kept = "removed" if payloads.is_empty else "kept"
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

    def _place(self, connection: Connection, run: str) -> Place | None:
        """Where a run is, if it is; None: not a run's id, or no worker has ever run here."""
        if not may_be_run(run):
            return None
        if not self._shards:  # it never changes once a worker has made it known
            self._shards = count_shards(connection)
        return (shard_of(run, self._shards), run_key(run)) if self._shards else None

    def _may_be_archived(self, connection: Connection, run: str, place: Place | None) -> bool:
        """There is an archive, and nobody has deleted this run."""
        if self._archive_url is None or place is None:
            return self._archive_url is not None and may_be_run(run)
        statement = select(tombstones.c.is_expiry).where(
            tombstones.c.shard == place[0], tombstones.c.run == place[1]
        )
        is_aged: Any = connection.execute(statement.limit(1)).scalar()
        return is_aged is not False

    def _archive(self) -> "Archive":
        assert self._archive_url is not None
        with self._opening:
            if self._opened is None:
                self._opened = open_archive(self._archive_url)
            return self._opened


_IS_AGED: Final = runs.c.payloads_expired_at.is_not(None)


def _row(connection: Connection, place: Place, column: ColumnElement[Any]) -> Any:
    shard, key = place
    statement = select(column).where(runs.c.shard == shard, runs.c.run == key)
    return connection.execute(statement.limit(1)).first()


def open_archive(url: str) -> "Archive":
    """Raises `ArchiveUnusable`, also where pyarrow is missing."""
    try:
        from runfold_storage.archive import store as place
    except ImportError as error:
        raise ArchiveUnusable(
            f"RUNFOLD_ARCHIVE: needs pyarrow: pip install 'runfold[parquet]' ({error})"
        ) from error
    return place.open_archive(url)
