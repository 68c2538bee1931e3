"""Checks of PostgreSQL: version, schema, partitions, incidents, dead letters, jobs, search."""

from collections.abc import Iterator
from datetime import UTC, date
from typing import Final

import psycopg

from runfold_storage.checkpoints.incidents import MEANINGS, REMEDIES, acknowledge, read_incidents
from runfold_storage.errors import SchemaOutdated
from runfold_storage.jobs import count_jobs, unclaimed_jobs
from runfold_storage.ledger.events import count_dead_letters, latest_reasons
from runfold_storage.ledger.partitions import existing_partitions, partition_name, weeks_ahead
from runfold_storage.migrate import check_schema, head
from runfold_storage.search.indexer import read_state
from runfold_storage.search.lookup import MAX_BEHIND

from . import Finding, fail, ok, warn

OLDEST: Final = 15
_LISTED: Final = 3


def check_server(connection: psycopg.Connection) -> Finding:
    version = connection.info.server_version // 10_000
    found = f"PostgreSQL {connection.info.parameter_status('server_version')} answers"
    if version < OLDEST:
        return warn("postgresql", found, f"upgrade to {OLDEST} or later")
    return ok("postgresql", found)


def check_revision(database_url: str) -> Finding:
    """Check the schema, which every later check needs."""
    try:
        check_schema(database_url)
    except SchemaOutdated as error:
        found, _, remedy = str(error).partition("; ")
        return fail("schema", found, remedy)
    return ok("schema", f"at {head()}")


def check_partitions(connection: psycopg.Connection, today: date) -> Finding:
    """Check the ledger's partitions: the present week must exist, the next ones should."""
    existing = existing_partitions(connection)
    this_week = today.toordinal() - today.weekday()
    weeks = [week for week in weeks_ahead(today) if week.toordinal() >= this_week]
    names = [partition_name(week) for week in [*weeks, None]]
    missing = [name for name in names if name not in existing]
    remedy = "run: runfold migrate"
    if partition_name(weeks[0]) in missing or partition_name(None) in missing:
        return fail("partitions", f"missing now: {', '.join(missing)}", remedy)
    if missing:
        return warn("partitions", f"missing soon: {', '.join(missing)}", remedy)
    return ok("partitions", f"complete up to {partition_name(weeks[-1])}")


def check_incidents(
    connection: psycopg.Connection, *, acknowledge_them: bool = False
) -> Iterator[Finding]:
    """Report the incidents of each kind that are not acknowledged yet."""
    incidents = [each for each in read_incidents(connection.execute) if each.new]
    if not incidents:
        yield ok("incidents", "no unacknowledged incidents")
    for kind in dict.fromkeys(each.kind for each in incidents):
        alike = [each for each in incidents if each.kind == kind]
        number, last = sum(each.new for each in alike), max(each.happened_at for each in alike)
        shards = sorted(each.shard for each in alike if each.shard is not None)
        where = f" (shard {', '.join(map(str, shards))})" if shards else ""
        found = f"{number:,} {MEANINGS[kind]}{where}, last at {last.astimezone(UTC):%F %T} UTC"
        level = warn if kind == "position_moved" else fail
        yield level("incidents", found, f"{REMEDIES[kind]}. Then: runfold doctor --acknowledge")
    if acknowledge_them:
        acknowledge(connection, incidents)


def check_dead_letters(connection: psycopg.Connection) -> Finding:
    letters = count_dead_letters(connection)
    if not letters:
        return ok("dead letters", "none")
    latest = latest_reasons(connection, _LISTED)
    reasons = "; ".join(f"{count} × {reason[:120]}" for reason, count in latest)
    found = f"{letters:,} invalid events or frames; the latest: {reasons}"
    remedy = "correct their senders; the table `dead_letters` has the original bytes"
    return warn("dead letters", found, remedy)


def check_jobs(connection: psycopg.Connection) -> Iterator[Finding]:
    """Check that a worker runs background jobs, and whether jobs have failed recently."""
    unfinished, old, failed = count_jobs(connection)
    if is_stuck := bool(old and len(unclaimed_jobs(connection)) == unfinished):
        found = f"{unfinished:,} jobs wait, and no worker runs any of them"
        remedy = "start `runfold worker --role jobs`, or check its log: it needs Redis, too"
        yield warn("jobs", found, remedy)
    if failed:
        found = f"{failed:,} jobs failed in the last week"
        yield warn("jobs", found, "`runfold jobs --status failed` shows the reasons")
    if not failed and not is_stuck:
        yield ok("jobs", f"{unfinished:,} unfinished" if unfinished else "none unfinished")


def check_search(connection: psycopg.Connection, max_behind: int = MAX_BEHIND) -> Finding:
    """Check that the search index exists and is up to date, else searches scan the runs."""
    state = read_state(connection)
    if not state.has_trigrams:
        found = "no search index, as PostgreSQL had no pg_trgm: searches scan the runs"
        return warn("search", found, "install its contrib modules, then: runfold search rebuild")
    if state.behind > max_behind:
        found = f"the search index is {state.behind:,} changes behind, so searches scan the runs"
        return warn("search", found, "check that a `runfold worker --role jobs` runs")
    return ok("search", f"the search index is {state.behind:,} changes behind")
