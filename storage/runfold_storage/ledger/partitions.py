"""The ledger's partitions: one per week, created ahead of time, and one for ids that callers chose.

There is no DEFAULT partition: it would block a concurrent detach. So a week must exist before its
first event is written. `ensure_weeks` creates missing partitions; repeated or concurrent calls are
harmless. A partition is built beside the ledger and then attached, because CREATE TABLE … PARTITION
OF would block readers and writers.
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
_LOCK: Final = 0x52464F4C  # 'RFOL': one process at a time creates partitions


def week_of(key: UUID) -> date | None:
    """Return the Monday of the week of this run key; None for ids that callers chose."""
    if is_own_id(key):
        return None
    day = datetime.fromtimestamp((key.int >> 80) / 1000, UTC).date()
    return day - timedelta(days=day.weekday())


def weeks_ahead(today: date) -> list[date]:
    """Return this week, the previous one (for clocks that are slow) and the next few."""
    monday = today - timedelta(days=today.weekday())
    return [monday + n * _WEEK for n in range(-1, WEEKS_AHEAD + 1)]


def partition_name(week: date | None) -> str:
    """Return the name of the table that holds a week."""
    if week is None:
        return _OWN_IDS_NAME
    year, number, _ = week.isocalendar()
    return f"events_{year}w{number:02}"


def existing_partitions(connection: psycopg.Connection) -> set[str]:
    """Return the names of the ledger's partitions."""
    rows = connection.execute(
        """
        SELECT c.relname
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'events'::regclass AND NOT i.inhdetachpending
        """
    )
    return {name for (name,) in rows}


def ensure_weeks(connection: psycopg.Connection, weeks: Iterable[date | None]) -> list[str]:
    """Create missing partitions; return their names. Raises `PartitionMissing`."""
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
                    _make(connection, name, week)
                    made.append(name)
        except psycopg.Error as error:
            if connection.broken:
                raise
            raise PartitionMissing(f"{name} cannot be created: {error}".rstrip()) from error
    return made


def week_of_partition(name: str) -> date | None:
    """Return the Monday of the week that this table holds; None if its name is not of that form."""
    found = _WEEK_NAME.fullmatch(name)
    return None if found is None else date.fromisocalendar(int(found[1]), int(found[2]), 1)


def first_key(day: date) -> UUID:
    """Return the smallest run key of this day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    start = min(max(start, FIRST_DAY - _WEEK), LAST_DAY + _WEEK)
    return UUID(int=int(start.timestamp() * 1000) << 80)


def _make(connection: psycopg.Connection, name: str, week: date | None) -> None:
    table = sql.Identifier(name)
    lower = sql.SQL("{}::uuid").format(str(OWN_IDS if week is None else first_key(week)))
    upper: sql.Composable = sql.SQL("MAXVALUE")
    inside = sql.SQL("run >= {}").format(lower)
    if week is not None:
        upper = sql.SQL("{}::uuid").format(str(first_key(week + _WEEK)))
        inside += sql.SQL(" AND run < {}").format(upper)
    connection.execute(sql.SQL("CREATE TABLE {} (LIKE events INCLUDING ALL)").format(table))
    # The CHECK proves to ATTACH that all rows are inside, so that it need not scan them.
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT bounds CHECK ({})").format(table, inside)
    )
    connection.execute(
        sql.SQL("ALTER TABLE events ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            table, lower, upper
        )
    )
    connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT bounds").format(table))
