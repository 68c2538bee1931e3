"""Retention policies: for how long payloads, runs and statistics are kept, by project.

The age of a run counts from its end; without one, from its last sign of life. Payloads are the
events of a run. They expire first: the row and the statistics stay, and the run accepts no more
events. When the row expires, the statistics stay. So nothing outlives what is derived from it.

A policy that deletes more than its predecessor applies from the next day on (UTC), an hour later at
the earliest, so that a mistake can be corrected; until then its project loses nothing. A more
generous policy applies at once, and so do all policies after `apply_all_now`.
"""

from datetime import datetime
from typing import Final, LiteralString

import psycopg
from msgspec import Struct

from runfold_storage.errors import BadParameter
from runfold_storage.parameters import check_name, check_number
from runfold_storage.postgres.connections import scalar

DEFAULT: Final = ""
"""The key of the default policy, for projects without a policy of their own."""
MAX_DAYS: Final = 36_500
_KINDS: Final = ("payload_days", "run_days", "stats_days")


class Policy(Struct, frozen=True):
    """Days to keep data, None for ever; without a `project`, the default policy."""

    project: str | None
    payload_days: int | None = None
    run_days: int | None = None
    stats_days: int | None = None

    def is_stricter(self, than: "Policy") -> bool:
        """Return whether this policy deletes anything earlier than the other one."""
        return any(
            getattr(self, kind) is not None
            and (getattr(than, kind) is None or getattr(self, kind) < getattr(than, kind))
            for kind in _KINDS
        )

    def check(self) -> "Policy":
        """Return the policy itself if it is valid; raise `BadParameter`."""
        check_name("project", self.project)
        previous, kept = "payload_days", self.payload_days
        for name in _KINDS:
            days = getattr(self, name)
            if days is not None:
                check_number(name, days, 1, MAX_DAYS)
                if kept is None or days < kept:
                    raise BadParameter(
                        name, f"cannot be shorter than {previous}, from which it follows"
                    )
            previous, kept = name, days
        return self


class StoredPolicy(Policy, frozen=True, kw_only=True):
    """A policy, and the time from which it applies, past or future."""

    holds_from: datetime


def read_policies(connection: psycopg.Connection) -> list[StoredPolicy]:
    """Return all policies, the default first."""
    rows = connection.execute(
        """
        SELECT nullif(project, ''), payload_days, run_days, stats_days, holds_from
        FROM retention ORDER BY project
        """
    )
    return [StoredPolicy(*policy, holds_from=holds_from) for *policy, holds_from in rows]


def set_policy(connection: psycopg.Connection, policy: Policy) -> None:
    """Set the policy of a project, or the default; raise `BadParameter`."""
    policy.check()
    with connection.transaction():
        known = {each.project: each for each in _lock_policies(connection)}
        before = known.get(policy.project) or known.get(None)
        is_stricter = before is None or policy.is_stricter(before)
        connection.execute(
            f"""
            INSERT INTO retention AS r (project, payload_days, run_days, stats_days, holds_from)
            VALUES (%s, %s, %s, %s, coalesce(%s, {_NEXT}))
            ON CONFLICT (project) DO UPDATE SET payload_days = excluded.payload_days,
                run_days = excluded.run_days, stats_days = excluded.stats_days,
                holds_from = excluded.holds_from
            """,  # noqa: S608 - made of constants
            (
                policy.project or DEFAULT,
                policy.payload_days,
                policy.run_days,
                policy.stats_days,
                None if before is None or is_stricter else before.holds_from,
            ),
        )


def delete_policy(connection: psycopg.Connection, project: str | None) -> bool:
    """Delete a project's policy, so that the default applies; False if it had none.

    If the default deletes more, it is postponed for all projects, as if it had been set now.
    """
    with connection.transaction():
        policies = {each.project: each for each in _lock_policies(connection)}
        own, others = policies.get(project), policies.get(None)
        if own is None:
            return False
        connection.execute("DELETE FROM retention WHERE project = %s", (project or DEFAULT,))
        if project is not None and others is not None and others.is_stricter(own):
            connection.execute(
                f"""
                UPDATE retention SET holds_from = greatest(holds_from, {_NEXT}) WHERE project = %s
                """,  # noqa: S608 - made of constants
                (DEFAULT,),
            )
        return True


def apply_all_now(connection: psycopg.Connection) -> None:
    """Apply all policies from now on."""
    connection.execute("UPDATE retention SET holds_from = now() WHERE holds_from > now()")


def shortest_days(connection: psycopg.Connection, now: datetime) -> int | None:
    """Return the age in days below which every policy in force keeps payloads; None: any age."""
    statement = "SELECT min(payload_days) FROM retention WHERE holds_from <= %s"
    days: int | None = scalar(connection, statement, (now,))
    return days


def _lock_policies(connection: psycopg.Connection) -> list[StoredPolicy]:
    """Lock the policies until the transaction ends, as each is compared with its predecessor."""
    connection.execute("LOCK TABLE retention IN SHARE ROW EXCLUSIVE MODE")
    return read_policies(connection)


_NEXT: Final[LiteralString] = """
    greatest(now() + interval '1 hour', date_trunc('day', now(), 'UTC') + interval '1 day')
"""


POLICIES: Final = """
    LEFT JOIN retention AS own ON own.project = {0}.project
    LEFT JOIN retention AS others ON others.project = ''
"""
"""The join that `due` needs; `{0}` is the alias of a table with a `project`."""


def due(kind: str, time: str) -> str:
    """Return SQL that is true if the time is longer ago than the policy in force allows."""
    days, holds_from = (
        f"CASE WHEN own.project IS NULL THEN others.{column} ELSE own.{column} END"
        for column in (kind, "holds_from")
    )
    is_old = f"{time} < %(now)s - make_interval(days => {days})"
    return f"coalesce({is_old} AND {holds_from} <= %(now)s, false)"


END: Final = "coalesce(r.finished_at, r.last_event_at)"
