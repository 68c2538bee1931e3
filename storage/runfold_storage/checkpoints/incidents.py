"""Incidents: losses and refusals that must not happen, counted by kind and shard.

An incident is counted in the transaction that handles it, where there is one, so it is counted
once. Counts never decrease. An operator acknowledges them, and later ones are reported as new.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, Literal

import psycopg
from msgspec import Struct

log = logging.getLogger(__name__)

Kind = Literal[
    "frames_lost",
    "stream_replaced",
    "position_moved",
    "partition_missing",
    "events_dropped",
    "retention_behind",
    "archive_failed",
]

NO_SHARD: Final = -1
"""The shard of incidents that concern the whole deployment."""

MEANINGS: Final[dict[Kind, str]] = {
    "frames_lost": "frames left their stream before they were folded",
    "stream_replaced": "streams were found flushed, or restored from a copy",
    "position_moved": "batches were refused, as another worker had moved the shard",
    "partition_missing": "partitions of the ledger could not be made",
    "events_dropped": "events were dropped by runners, whose memory and spool were full",
    "retention_behind": "times retention did not get done what was due",
    "archive_failed": "times the archive could not be written, so that nothing was taken away",
}
"""What is counted, phrased to follow the number."""

REMEDIES: Final[dict[Kind, str]] = {
    "frames_lost": "stop whatever trims or deletes the streams, only workers may; if the runners"
    " still have these events, send them again: what was folded is not counted twice",
    "stream_replaced": "all that Redis has is folded; look at its log and persistence, for what it"
    " had taken since the copy was made is gone",
    "position_moved": "nothing is wrong in the tables; if it goes on, look for workers that are"
    " paused for seconds, or that do not see each other's leases",
    "partition_missing": "workers wait and try again: look at PostgreSQL's log, its disk, the"
    " rights of its user, and for tables of that name",
    "events_dropped": "raise RUNFOLD_SPOOL_BYTES or RUNFOLD_BUFFER_EVENTS on the runners' hosts,"
    " or find out why Redis was away for so long",
    "retention_behind": "`runfold jobs` says what became of it; look for transactions that are open"
    " for long (pg_stat_activity), and for a worker that does jobs",
    "archive_failed": "`runfold jobs` has the reason: look at RUNFOLD_ARCHIVE, at rights and space"
    " there; what is due stays where it is, and `runfold retention run` tries again",
}


class Incident(Struct, frozen=True):
    """An incident; `new` is the unacknowledged part of `number`, no `shard` means all of them."""

    kind: Kind
    shard: int | None
    number: int
    new: int
    happened_at: datetime


def raise_incident(
    connection: psycopg.Connection, kind: Kind, number: int = 1, *, shard: int = NO_SHARD
) -> None:
    """Count an incident and log it."""
    connection.execute(
        """
        INSERT INTO incidents AS i (kind, shard, count) VALUES (%s, %s, %s)
        ON CONFLICT (kind, shard) DO UPDATE
        SET count = i.count + excluded.count, happened_at = now()
        """,
        (kind, shard, number),
    )
    extra = {"kind": kind} if shard == NO_SHARD else {"kind": kind, "shard": shard}
    log.error("incident: %d %s", number, MEANINGS[kind], extra=extra)


def read_incidents(execute: Callable[[str], Iterable[Any]]) -> list[Incident]:
    """Return all incidents, the latest first; `execute` runs a query on any kind of connection."""
    rows = execute(
        """
        SELECT kind, shard, count, count - acknowledged, happened_at
        FROM incidents ORDER BY happened_at DESC, kind, shard LIMIT 10000
        """
    )
    return [
        Incident(kind, None if shard == NO_SHARD else shard, number, new, happened_at)
        for kind, shard, number, new, happened_at in rows
    ]


def acknowledge(connection: psycopg.Connection, incidents: Iterable[Incident]) -> None:
    """Mark these incidents as acknowledged; only later ones count as new."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            UPDATE incidents SET acknowledged = greatest(acknowledged, %s)
            WHERE kind = %s AND shard = %s
            """,
            [
                (each.number, each.kind, NO_SHARD if each.shard is None else each.shard)
                for each in incidents
            ],
        )
