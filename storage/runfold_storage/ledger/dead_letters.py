"""Read the dead letters: frames and events that could not be decoded."""

import psycopg


def count_dead_letters(connection: psycopg.Connection) -> int:
    """Return their number."""
    ((n,),) = connection.execute("SELECT count(*) FROM dead_letters")
    return int(n)


def latest_reasons(connection: psycopg.Connection, limit: int) -> list[tuple[str, int]]:
    """Return the reasons of the newest thousand, each with its number, the latest first."""
    rows = connection.execute(
        """
        SELECT reason, count(*) FROM (
            SELECT reason, created_at FROM dead_letters ORDER BY id DESC LIMIT 1000
        ) AS latest
        GROUP BY reason ORDER BY max(created_at) DESC, reason LIMIT %s
        """,
        (limit,),
    )
    return rows.fetchall()
