"""Retention: what is due goes, the rest stays, figures stay."""

import psycopg
import pytest

from expired_runs import (
    DAY_US,
    EVENTS,
    EXEMPT_PROJECT_RUNS,
    NOW_US,
    OLD_NAMED_RUNS,
    OLD_RUNS,
    RUNS,
    events_of,
    run_retention,
    without_payloads,
    without_rows,
)
from frame_delivery import SHARDS, fold
from oracle import project
from rebuild_checks import find_mismatches, rebuild_all
from runfold.protocol.ids import run_key
from runfold_storage.errors import BadParameter
from runfold_storage.ledger.partitions import existing_partitions, partition_name, week_of
from runfold_storage.retention.policies import Policy, delete_policy, read_policies, set_policy
from runfold_storage.retention.run_deletion import delete_run
from runfold_workers.retention.job import plan
from table_reader import read_projection

pytestmark = pytest.mark.usefixtures("deployment")


def test_payloads_that_are_due_go(database: psycopg.Connection, migrated_url: str) -> None:
    """Rows and figures stay; a week of which nothing is left goes as a whole."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy("acme", payload_days=30))
    weeks = [partition_name(week_of(run_key(run[0]["run"]))) for run in OLD_RUNS]
    shared = partition_name(week_of(run_key(EXEMPT_PROJECT_RUNS[0][0]["run"])))

    due = plan(database)
    assert (due.payloads, due.runs, due.rollups) == (len(OLD_RUNS) + 1, 0, 0)
    assert due.partitions == sorted(set(weeks) - {shared})

    progress = run_retention(migrated_url)
    assert progress.payloads == len(OLD_RUNS) + 1
    assert progress.partitions == due.partitions
    assert existing_partitions(database).isdisjoint(due.partitions)
    assert shared in existing_partitions(database)
    expected = without_payloads(project(EVENTS, SHARDS), [*OLD_RUNS, *OLD_NAMED_RUNS])
    assert read_projection(database) == expected
    again = run_retention(migrated_url)
    assert (again.payloads, again.partitions) == (0, [])

    assert find_mismatches(database) == []
    rebuild_all(database)
    assert read_projection(database) == expected


def test_rows_that_are_due_go_and_their_figures_stay(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """Neither a rebuild nor a late event changes that."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=65))
    set_policy(database, Policy("keeps"))
    gone = [*OLD_RUNS[:3], *OLD_NAMED_RUNS]
    progress = run_retention(migrated_url)
    assert (progress.payloads, progress.runs) == (len(OLD_RUNS) + 1, len(gone))
    expected = without_rows(
        without_payloads(project(EVENTS, SHARDS), [*OLD_RUNS, *OLD_NAMED_RUNS]), gone
    )
    assert read_projection(database) == expected

    late = [
        {**run[0], "type": "annotated", "id": 77}
        for run in (OLD_RUNS[0], OLD_RUNS[3], OLD_NAMED_RUNS[0])
    ]
    fold(migrated_url, [*late, *events_of(OLD_RUNS)], first=10_000)
    rebuild_all(database)
    assert read_projection(database) == expected
    assert find_mismatches(database) == []


def test_figures_that_are_due_go(database: psycopg.Connection, migrated_url: str) -> None:
    """Those of whole hours, behind the rows."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=50, stats_days=90))
    rollups = len(project(events_of(OLD_RUNS[:2]), SHARDS).stats)
    assert plan(database).rollups == rollups
    assert run_retention(migrated_url).rollups == rollups
    hours = {key.hour_us for key in read_projection(database).stats}
    assert min(hours) > NOW_US - 90 * DAY_US
    assert find_mismatches(database) == []


def test_what_has_lost_its_payloads_can_be_deleted(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """And leaves the figures, as any other."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=1))
    run_retention(migrated_url)
    assert delete_run(database, OLD_RUNS[0][0]["run"])
    left = project(events_of(RUNS[1:]), SHARDS)
    found = read_projection(database)
    assert (found.runs, found.nodes, found.stats) == (left.runs, left.nodes, left.stats)
    assert find_mismatches(database) == []


def stored(database: psycopg.Connection) -> list[Policy]:
    """The policies without when they hold."""
    return [
        Policy(each.project, each.payload_days, each.run_days, each.stats_days)
        for each in read_policies(database)
    ]


def test_policies(database: psycopg.Connection) -> None:
    """Of each project its own, else the one of all others; never one that cannot be."""
    with pytest.raises(BadParameter, match="run_days"):
        set_policy(database, Policy("acme", payload_days=30, run_days=29))
    with pytest.raises(BadParameter, match="run_days"):
        set_policy(database, Policy("acme", run_days=29))
    with pytest.raises(BadParameter, match="payload_days"):
        set_policy(database, Policy("acme", payload_days=0))
    policies = [Policy(None, 30), Policy("acme", 7, 90, None)]
    for policy in policies:
        set_policy(database, policy)
    assert stored(database) == policies
    assert delete_policy(database, "acme")
    assert not delete_policy(database, "acme")
    assert stored(database) == policies[:1]
