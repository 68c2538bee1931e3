"""The ledger's partitions: one a week, made ahead of time, and one for callers' own run ids.

There is no DEFAULT partition: it would block a concurrent detach. So a week must exist before
its first event is written; `ensure_weeks` makes what is missing, and running it again, or twice
at once, changes nothing. A partition is built beside the ledger and then attached, because
CREATE TABLE … PARTITION OF would lock readers and writers out.
"""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

import psycopg
from psycopg import sql

from runfold.protocol.ids import FIRST_DAY, LAST_DAY, is_own_id
from runfold_storage.errors import PartitionMissing

WEEKS_AHEAD: Final = 4

_WEEK: Final = timedelta(days=7)
OWN_IDS: Final = UUID(int=0xFFFF << 112)
_OWN_IDS_NAME: Final = "events_own_ids"
_WEEK_NAME: Final = re.compile(r"events_(\d{4})w(\d{2})")
_LOCK: Final = 0x52464F4C  # 'RFOL': one maker of partitions at a time


def week_of(key: UUID) -> date | None:
    """The Monday of the week in which this run was named; None for callers' own ids."""
    if is_own_id(key):
        return None
    day = datetime.fromtimestamp((key.int >> 80) / 1000, UTC).date()
    return day - timedelta(days=day.weekday())


def weeks_ahead(today: date) -> list[date]:
    """This week, the one before (for clocks that are late) and the next few."""
    monday = today - timedelta(days=today.weekday())
    return [monday + n * _WEEK for n in range(-1, WEEKS_AHEAD + 1)]


def partition_name(week: date | None) -> str:
    """The table that holds a week."""
    if week is None:
        return _OWN_IDS_NAME
    year, number, _ = week.isocalendar()
    return f"events_{year}w{number:02}"


def existing_partitions(connection: psycopg.Connection) -> set[str]:
    """The names of all partitions of the ledger."""
    rows = connection.execute(
        """
        SELECT c.relname
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'events'::regclass AND NOT i.inhdetachpending
        """
    )
    return {name for (name,) in rows}


def ensure_weeks(connection: psycopg.Connection, weeks: Iterable[date | None]) -> list[str]:
    """Make the partitions that are missing, each in its own transaction; returns their names.

    Raises `PartitionMissing` where PostgreSQL answers, but refuses.
    """
    made = []
    existing = existing_partitions(connection)
    for week in sorted(set(weeks), key=lambda week: week or date.max):
        name = partition_name(week)
        if name in existing:
            continue
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                if name not in existing_partitions(connection):
                    _make(connection, name, *_bounds(week))
                    made.append(name)
        except psycopg.Error as error:
            if connection.broken:
                raise
            raise PartitionMissing(f"{name} cannot be made: {error}".rstrip()) from error
    return made


def _bounds(week: date | None) -> tuple[UUID, UUID | None]:
    if week is None:
        return OWN_IDS, None
    return first_key(week), first_key(week + _WEEK)


def week_of_partition(name: str) -> date | None:
    """The Monday of the week that this table holds; None if it holds none."""
    found = _WEEK_NAME.fullmatch(name)
    return None if found is None else date.fromisocalendar(int(found[1]), int(found[2]), 1)


def first_key(day: date) -> UUID:
    """No run that was named on this day or later has a smaller key."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    start = min(max(start, FIRST_DAY - _WEEK), LAST_DAY + _WEEK)
    return UUID(int=int(start.timestamp() * 1000) << 80)


def _make(connection: psycopg.Connection, name: str, first: UUID, end: UUID | None) -> None:
    table = sql.Identifier(name)
    lower = sql.SQL("{}::uuid").format(str(first))
    upper: sql.Composable = sql.SQL("MAXVALUE")
    inside = sql.SQL("run >= {}").format(lower)
    if end is not None:
        upper = sql.SQL("{}::uuid").format(str(end))
        inside += sql.SQL(" AND run < {}").format(upper)
    connection.execute(sql.SQL("CREATE TABLE {} (LIKE events INCLUDING ALL)").format(table))
    # The CHECK proves to ATTACH that no row is outside, so that it scans nothing.
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT bounds CHECK ({})").format(table, inside)
    )
    connection.execute(
        sql.SQL("ALTER TABLE events ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            table, lower, upper
        )
    )
    connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT bounds").format(table))
