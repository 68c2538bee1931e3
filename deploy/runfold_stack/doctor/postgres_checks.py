"""Is PostgreSQL there, with this version's schema and room for the weeks to come?"""

from collections.abc import Iterator
from datetime import UTC, date
from typing import Final

import psycopg

from runfold_storage.checkpoints.incidents import MEANINGS, REMEDIES, acknowledge, read_incidents
from runfold_storage.errors import SchemaOutdated
from runfold_storage.jobs import jobs_waiting
from runfold_storage.ledger.partitions import existing_partitions, partition_name, weeks_ahead
from runfold_storage.migrate import check_schema, head
from runfold_storage.search.indexer import read_state
from runfold_storage.search.lookup import MAX_BEHIND

from .findings import Finding, fail, ok, warn

OLDEST: Final = 15
_LISTED: Final = 3


def check_server(connection: psycopg.Connection) -> Finding:
    """Its version."""
    version = connection.info.server_version // 10_000
    row = connection.execute("SHOW server_version").fetchone()
    found = f"PostgreSQL {row[0] if row else version} answers"
    if version < OLDEST:
        return warn("postgresql", found, f"upgrade to {OLDEST} or later")
    return ok("postgresql", found)


def check_revision(database_url: str) -> Finding:
    """The schema; everything else needs it."""
    try:
        check_schema(database_url)
    except SchemaOutdated as error:
        found, _, remedy = str(error).partition("; ")
        return fail("schema", found, remedy)
    return ok("schema", f"at {head()}")


def check_partitions(connection: psycopg.Connection, today: date) -> Finding:
    """The ledger's weeks: this one must be there, and the next few should be."""
    existing = existing_partitions(connection)
    this_week = today.toordinal() - today.weekday()
    weeks = [week for week in weeks_ahead(today) if week.toordinal() >= this_week]
    missing = [partition_name(week) for week in [*weeks, None] if _name(week) not in existing]
    remedy = "run: runfold migrate"
    if partition_name(weeks[0]) in missing or partition_name(None) in missing:
        return fail("partitions", f"missing now: {', '.join(missing)}", remedy)
    if missing:
        return warn("partitions", f"missing soon: {', '.join(missing)}", remedy)
    return ok("partitions", f"there up to {partition_name(weeks[-1])}")


def check_incidents(
    connection: psycopg.Connection, *, acknowledge_them: bool = False
) -> Iterator[Finding]:
    """What must not happen and did, of each kind that nobody has taken note of yet."""
    incidents = [each for each in read_incidents(connection.execute) if each.new]
    if not incidents:
        yield ok("incidents", "none that nobody has taken note of")
    for kind in dict.fromkeys(each.kind for each in incidents):
        alike = [each for each in incidents if each.kind == kind]
        number, last = sum(each.new for each in alike), max(each.happened_at for each in alike)
        shards = sorted(each.shard for each in alike if each.shard is not None)
        where = f" (shard {', '.join(map(str, shards))})" if shards else ""
        found = f"{number:,} {MEANINGS[kind]}{where}, last at {last.astimezone(UTC):%F %T} UTC"
        how = warn if kind == "position_moved" else fail
        yield how("incidents", found, f"{REMEDIES[kind]}. Then: runfold doctor --acknowledge")
    if acknowledge_them:
        acknowledge(connection, incidents)


def check_dead_letters(connection: psycopg.Connection) -> Iterator[Finding]:
    """What could not be understood, and why."""
    row = connection.execute("SELECT count(*) FROM dead_letters").fetchone()
    if row is None or not row[0]:
        yield ok("dead letters", "none")
        return
    latest = connection.execute(
        """
        SELECT reason, count(*), max(created_at)
        FROM (SELECT reason, created_at FROM dead_letters ORDER BY id DESC LIMIT 1000) AS latest
        GROUP BY reason
        ORDER BY max(created_at) DESC, reason
        LIMIT %s
        """,
        (_LISTED,),
    ).fetchall()
    reasons = "; ".join(f"{count} × {reason[:120]}" for reason, count, _ in latest)
    yield warn(
        "dead letters",
        f"{row[0]:,} events or frames could not be understood; the latest: {reasons}",
        "correct whoever sends them; the table `dead_letters` has what they sent, as bytes",
    )


def check_jobs(connection: psycopg.Connection) -> Iterator[Finding]:
    """Work in the background: whether somebody does it, and what failed of late."""
    waiting = set(jobs_waiting(connection))
    row = connection.execute(
        """
        SELECT count(*) FILTER (WHERE status IN ('queued', 'running')),
               count(*) FILTER (WHERE status IN ('queued', 'running')
                                  AND created_at < now() - interval '1 minute'),
               count(*) FILTER (WHERE status = 'failed')
        FROM jobs WHERE background AND (
            status IN ('queued', 'running') OR finished_at > now() - interval '7 days'
        )
        """
    ).fetchone()
    assert row is not None
    unfinished, old, failed = row
    if old and len(waiting) == unfinished:
        yield warn(
            "jobs",
            f"{unfinished:,} wait, and nobody is at any of them",
            "start `runfold worker --role jobs`, or look at its log: it needs Redis, too",
        )
    if failed:
        yield warn(
            "jobs", f"{failed:,} failed in the last week", "`runfold jobs --status failed` says why"
        )
    if not failed and not (old and len(waiting) == unfinished):
        yield ok("jobs", f"{unfinished:,} to be done" if unfinished else "none to be done")


def check_search(connection: psycopg.Connection) -> Finding:
    """Whether texts are looked up, or searched for by walking through runs."""
    state = read_state(connection)
    if not state.has_trigrams:
        found = "no index of texts: PostgreSQL had no pg_trgm, so texts are searched for run by run"
        return warn("search", found, "install its contrib modules, then: runfold search rebuild")
    if state.behind > MAX_BEHIND:
        found = f"the index of texts is {state.behind:,} changes behind, too many to be asked"
        return warn("search", found, "`runfold worker --role jobs` keeps it: is one at work?")
    return ok("search", f"the index of texts is {state.behind:,} changes behind")


def _name(week: date | None) -> str:
    return partition_name(week)
