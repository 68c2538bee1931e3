"""How long what is kept, by project: payloads, runs, statistics.

The age of a run counts from its end; without one, from its last sign of life. Payloads are the
events of a run; when they have gone its row and its figures stay, and it takes no more events. When
its row goes, its figures stay. So nothing is kept longer than what follows from it.
"""

from typing import Final

import psycopg
from msgspec import Struct

from .errors import BadParameter
from .parameters import check_name, check_number

OTHERS: Final = ""
"""The project that stands for all those without a policy of their own."""
MAX_DAYS: Final = 36_500


class Policy(Struct, frozen=True):
    """For how many days; None: for ever. Without a `project`: for those that have none."""

    project: str | None
    payload_days: int | None = None
    run_days: int | None = None
    stats_days: int | None = None

    def check(self) -> "Policy":
        """Itself; raises `BadParameter`."""
        check_name("project", self.project)
        previous, kept = "payload_days", self.payload_days
        for name in ("payload_days", "run_days", "stats_days"):
            days = getattr(self, name)
            if days is not None:
                check_number(name, days, 1, MAX_DAYS)
                if kept is None or days < kept:
                    raise BadParameter(
                        name, f"cannot be shorter than {previous}, from which it follows"
                    )
            previous, kept = name, days
        return self


def read_policies(connection: psycopg.Connection) -> list[Policy]:
    """All of them, that for the others first."""
    rows = connection.execute(
        """
        SELECT nullif(project, ''), payload_days, run_days, stats_days
        FROM retention ORDER BY project
        """
    )
    return [Policy(*row) for row in rows]


def set_policy(connection: psycopg.Connection, policy: Policy) -> None:
    """From the next run of retention on; raises `BadParameter`."""
    policy.check()
    connection.execute(
        """
        INSERT INTO retention (project, payload_days, run_days, stats_days)
        VALUES (%s, %s, %s, %s)
        ON CONFLICT (project) DO UPDATE SET payload_days = excluded.payload_days,
            run_days = excluded.run_days, stats_days = excluded.stats_days, updated_at = now()
        """,
        (policy.project or OTHERS, policy.payload_days, policy.run_days, policy.stats_days),
    )


def forget_policy(connection: psycopg.Connection, project: str | None) -> bool:
    """The one of the others holds from now on; False if there was none."""
    found = connection.execute("DELETE FROM retention WHERE project = %s", (project or OTHERS,))
    return bool(found.rowcount)


def shortest_days(connection: psycopg.Connection) -> int | None:
    """What is younger is kept by every policy; None: everything is."""
    row = connection.execute("SELECT min(payload_days) FROM retention").fetchone()
    return None if row is None else row[0]


def _days(kind: str) -> str:
    return f"CASE WHEN own.project IS NULL THEN others.{kind} ELSE own.{kind} END"


POLICIES: Final = """
    LEFT JOIN retention AS own ON own.project = {0}.project
    LEFT JOIN retention AS others ON others.project = ''
"""
"""What `due` looks at, joined to a table."""


def due(kind: str, time: str) -> str:
    """SQL that is true where this point in time is longer ago than the policy keeps it."""
    return f"coalesce({time} < %(now)s - make_interval(days => {_days(kind)}), false)"


END: Final = "coalesce(r.finished_at, r.seen_at)"
