"""Projects whose payloads are searched; all others pay nothing for it.

After enabling, runs are indexed as they end, and existing runs newest first. After disabling,
searches stop using the payloads at once, and the indexer deletes their texts.
"""

from datetime import datetime

import psycopg
from msgspec import Struct

from runfold_storage.parameters import check_name


class SearchedProject(Struct, frozen=True):
    """A project whose payloads are searched, back to `since` (null: all)."""

    project: str
    wanted: bool
    """False: it was disabled, and its texts are being deleted."""
    whole: bool
    since: datetime | None


def read_projects(connection: psycopg.Connection) -> list[SearchedProject]:
    """Return all of them, by name."""
    rows = connection.execute(
        """
        SELECT project, enabled, backfilled,
               CASE WHEN NOT backfilled THEN coalesce(backfill_at, enabled_since) END
        FROM search_projects ORDER BY project
        """
    )
    return [SearchedProject(*row) for row in rows]


def enable_payload_search(connection: psycopg.Connection, project: str) -> None:
    """Enable payload search for a project; raise `BadParameter` for a bad name."""
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


def disable_payload_search(connection: psycopg.Connection, project: str) -> bool:
    """Disable payload search for a project; return False if it was not enabled."""
    found = connection.execute(
        "UPDATE search_projects SET enabled = false WHERE project = %s AND enabled", (project,)
    )
    return bool(found.rowcount)
