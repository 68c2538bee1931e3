"""Whether workers are at work: every shard has one that holds its lease."""

import psycopg

from runfold_storage.databases import connect
from runfold_storage.errors import DatabaseUnreachable


def workers_fold(database_url: str) -> bool:
    """Whether all shards are owned; False as well while the database does not answer."""
    try:
        with connect(database_url, autocommit=True) as connection:
            row = connection.execute(
                """
                SELECT count(*), count(*) FILTER (WHERE leases.expires_at > now())
                FROM positions LEFT JOIN leases USING (shard)
                """
            ).fetchone()
    except (DatabaseUnreachable, psycopg.Error):
        return False
    return row is not None and row[0] > 0 and row[0] == row[1]
