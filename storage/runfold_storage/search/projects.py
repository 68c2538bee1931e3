"""Which projects have the payloads of their runs searched; all others pay nothing for it.

Switched on, runs from then on are put in as they end, and those that there are, newest first.
Switched off, nobody finds anything by them from that moment on, and they are taken out.
"""

from datetime import datetime

import psycopg
from msgspec import Struct

from runfold_storage.parameters import check_name


class SearchedProject(Struct, frozen=True):
    """A project whose payloads are searched; `since` is how far back that goes (null: all)."""

    project: str
    wanted: bool
    """False: it was switched off, and is being taken out."""
    whole: bool
    since: datetime | None


def read_projects(connection: psycopg.Connection) -> list[SearchedProject]:
    """All of them, by name."""
    rows = connection.execute(
        """
        SELECT project, enabled, backfilled,
               CASE WHEN NOT backfilled THEN coalesce(backfill_at, enabled_since) END
        FROM search_projects ORDER BY project
        """
    )
    return [SearchedProject(*row) for row in rows]


def search_payloads_of(connection: psycopg.Connection, project: str) -> None:
    """Switch it on; raises `BadParameter`."""
    check_name("project", project)
    connection.execute(
        """
        INSERT INTO search_projects (project) VALUES (%s)
        ON CONFLICT (project) DO UPDATE
        SET enabled = true, enabled_since = now(), backfilled = false, backfill_at = NULL,
            backfill_run = NULL
        WHERE NOT search_projects.enabled
        """,
        (project,),
    )


def forget_payloads_of(connection: psycopg.Connection, project: str) -> bool:
    """Switch it off; False if it was not on."""
    found = connection.execute(
        "UPDATE search_projects SET enabled = false WHERE project = %s AND enabled", (project,)
    )
    return bool(found.rowcount)
