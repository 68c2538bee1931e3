"""Select the runs that are due, one policy at a time, along the index of its project.

A run is never older than its first event, so the index skips runs whose first event is younger than
the policy's limit, and those whose keys belong to weeks that the ledger no longer has.
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from msgspec import Struct

from runfold_storage.ledger.partitions import existing_partitions, first_key, week_of_partition
from runfold_storage.postgres.connections import scalar

from .policies import END, POLICIES, Policy, due, read_policies

PAYLOADS, RUNS = "payload_days", "run_days"


class PolicyScan(Struct, frozen=True):
    """One scan: payloads or runs of a project, or of all projects without a policy of their own."""

    what: str
    project: str | None
    days: int


class DueRun(NamedTuple):
    """A run that is due."""

    shard: int
    run: UUID
    created_at: datetime


def policy_scans(connection: psycopg.Connection, now: datetime) -> list[PolicyScan]:
    """Return the scans of all policies in force: payloads first, as a run's events are deleted
    before its row."""
    rows = connection.execute(
        """
        SELECT w.what, nullif(r.project, ''), CASE w.what
            WHEN 'payload_days' THEN r.payload_days ELSE r.run_days END
        FROM retention AS r CROSS JOIN (VALUES (1, 'payload_days'), (2, 'run_days')) AS w (n, what)
        WHERE r.holds_from <= %s
        ORDER BY w.n, r.project
        """,
        (now,),
    )
    return [PolicyScan(what, project, days) for what, project, days in rows if days is not None]


def read_due(
    connection: psycopg.Connection,
    turn: PolicyScan,
    now: datetime,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[DueRun]:
    """Return the next due runs, by first event; fewer than `limit` if these are the last."""
    beyond = "" if after is None else "AND (r.created_at, r.run) > (%(created_at)s, %(run)s)"
    rows = connection.execute(
        f"""
        SELECT r.shard, r.run, r.created_at {_due(turn)} {beyond}
        ORDER BY r.created_at, r.run LIMIT %(limit)s
        """,
        {
            **_parameters(connection, turn, now),
            "limit": limit,
            **({} if after is None else {"created_at": after[0], "run": after[1]}),
        },
    )
    return [DueRun(*row) for row in rows]


class RetentionPlan(Struct, frozen=True):
    """What a run of retention would delete."""

    partitions: list[str]
    payloads: int
    """Runs whose events would be deleted, including those in the partitions."""
    runs: int
    rollups: int
    hours: int
    """How many hours these rollups belong to."""


def count_due(
    connection: psycopg.Connection,
    now: datetime,
    partitions: list[str],
    policy: Policy | None = None,
) -> RetentionPlan:
    """Count what is due, by reading all of it; with a `policy`, by this one alone."""
    counts = {PAYLOADS: 0, RUNS: 0}
    for turn in policy_scans(connection, now):
        if policy is not None and turn.project != policy.project:
            continue
        parameters = _parameters(connection, turn, now)
        counts[turn.what] += scalar(connection, f"SELECT count(*) {_due(turn)}", parameters)
    rollups = connection.execute(
        f"""
        SELECT count(*), count(DISTINCT s.hour) FROM rollups_hourly AS s {POLICIES.format("s")}
        WHERE {due("stats_days", "s.hour")}
          AND (%(all)s OR own.project IS NOT DISTINCT FROM %(project)s::text)
        """,  # noqa: S608 - made of constants
        {"now": now, "all": policy is None, "project": policy and policy.project},
    ).fetchone()
    assert rollups is not None
    return RetentionPlan(partitions, counts[PAYLOADS], counts[RUNS], *rollups)


def _due(turn: PolicyScan) -> str:
    whose = "r.project = %(project)s" if turn.project is not None else _OF_OTHERS
    left = f"AND {_LEFT}" if turn.what == PAYLOADS else ""
    return f"""
        FROM runs AS r
        WHERE {whose} AND r.created_at < %(before)s AND r.run >= %(first)s
          AND {END} < %(before)s {left}
    """


def _parameters(
    connection: psycopg.Connection, turn: PolicyScan, now: datetime
) -> dict[str, object]:
    weeks = list(filter(None, map(week_of_partition, existing_partitions(connection))))
    return {
        "project": turn.project,
        "own": [each.project for each in read_policies(connection) if each.project is not None],
        "before": now - timedelta(days=turn.days),
        # Smaller keys than this one have no events in the ledger.
        "first": first_key(min(weeks)) if weeks and turn.what == PAYLOADS else UUID(int=0),
    }


_OF_OTHERS: Final = "r.project <> ALL(%(own)s::text[])"
# 'infinity': marked, but its events may not all be deleted.
_LEFT: Final = "(r.payloads_expired_at IS NULL OR r.payloads_expired_at = 'infinity')"
