"""Look a text up in the search index: find the few runs that include all matches.

Runs that changed since the index was current are added unconditionally. Callers compare the texts
themselves: trigrams, and an index that is behind, may name runs that do not match.

The index cannot answer for a text without three letters or digits in a row, for trigrams that are
too common, for more matches than can be sorted for every page, or when it is far behind or missing.
Then the lookup returns None, and callers scan the runs, which is bounded.
"""

from typing import Final
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from runfold_storage.change_feed.reader import read_changes
from runfold_storage.errors import BadParameter
from runfold_storage.filters.run_filter import RunFilter, tag_of
from runfold_storage.filters.search_text import has_trigram, pattern_of, selective_part
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.summaries import Searched

from .index_writer import RunKey

MAX_FOUND: Final = 2_000
"""Runs that the index may return; it has no order."""
MAX_BEHIND: Final = 5_000
"""Changes that the index may be behind; their runs are compared one by one."""
LOOK_UP_MS: Final = 150
"""Time limit of an index lookup."""

# Custom plans: trigrams differ too much in frequency for a generic plan.
_BEGIN: Final = f"""
    SAVEPOINT look_up;
    SET LOCAL statement_timeout = {LOOK_UP_MS};
    SET LOCAL plan_cache_mode = force_custom_plan;
    SET LOCAL enable_seqscan = off
"""
_END: Final = "ROLLBACK TO SAVEPOINT look_up; RELEASE SAVEPOINT look_up"


def find_runs(
    connection: ReadConnection,
    run_filter: RunFilter,
    *,
    most: int = MAX_FOUND,
    max_behind: int = MAX_BEHIND,
) -> list[RunKey] | None:
    """Return runs that include all matches; None if the index cannot answer."""
    run_keys = None
    if run_filter.payload is not None and has_trigram(run_filter.payload):
        run_keys = _run_lookup(connection, _OF_PAYLOADS, run_filter, run_filter.payload, most)
    if run_keys is None and run_filter.q is not None and has_trigram(run_filter.q):
        recent = _changed_since(connection, max_behind)
        if recent is not None:
            statement = _OF_RUNS if tag_of(run_filter.q) is None else _OF_RUNS_AND_TAGS
            run_keys = _run_lookup(connection, statement, run_filter, run_filter.q, most)
        if run_keys is not None and recent is not None:
            run_keys = list({*run_keys, *recent})
    return run_keys


def read_searched(connection: ReadConnection, project: str | None) -> Searched:
    """Return which payloads are covered; raise `BadParameter` if none ever are."""
    rows = connection.execute(
        """
        SELECT project, CASE WHEN NOT backfilled THEN coalesce(backfill_at, enabled_since) END
        FROM search_projects WHERE enabled AND (project = %(project)s OR %(project)s::text IS NULL)
        """,
        {"project": project},
    ).fetchall()
    if not rows:
        subject = "no project has" if project is None else f"project {project} does not have"
        raise BadParameter(
            "payload",
            f"{subject} its payloads searched: runfold search set --project … --payloads on",
        )
    ((pending, up_to),) = connection.execute(
        """
        SELECT coalesce(sum(p.change_seq - coalesce(s.change_seq, 0)), 0)::bigint,
               CASE WHEN bool_and(p.change_seq = coalesce(s.change_seq, 0)) THEN now()
                    WHEN bool_or(s.changed_at IS NULL AND p.change_seq > 0) THEN NULL
                    ELSE min(s.changed_at) FILTER (WHERE p.change_seq > s.change_seq) END
        FROM positions AS p LEFT JOIN search_progress AS s ON s.shard = p.shard
        """
    )
    since = [reached for _, reached in rows if reached is not None]
    return Searched(up_to, pending, max(since, default=None))


_OF_RUNS: Final = """
    (SELECT shard, run FROM search_runs WHERE text LIKE lower(%(pattern)s) LIMIT %(most)s)
"""
_OF_RUNS_AND_TAGS: Final = f"""
    {_OF_RUNS}
    UNION ALL
    (SELECT shard, run FROM runs WHERE tags @> %(tag)s AND tags IS NOT NULL LIMIT %(most)s)
"""  # noqa: S608 - made of constants
_OF_PAYLOADS: Final = """
    SELECT shard, run FROM search_payloads
    WHERE text LIKE lower(%(pattern)s) AND (project = %(project)s OR %(project)s::text IS NULL)
    LIMIT %(most)s
"""


def _run_lookup(
    connection: ReadConnection, statement: str, run_filter: RunFilter, searched: str, most: int
) -> list[RunKey] | None:
    """Return None if there are too many matches, or if the lookup takes too long."""
    parameters = {
        "pattern": pattern_of(selective_part(searched)),
        "project": run_filter.project,
        "tag": Jsonb(tag_of(searched)),
        "most": most + 1,
    }
    connection.execute(_BEGIN)
    try:
        with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            run_keys: list[RunKey] = cursor.execute(statement, parameters).fetchall()
    except psycopg.errors.QueryCanceled:
        return None
    finally:
        connection.execute(_END)
    return run_keys if len(run_keys) <= most else None


def _changed_since(connection: ReadConnection, max_behind: int) -> list[RunKey] | None:
    """Return the runs that changed since; None if there are too many, or no index."""
    rows = connection.execute(
        """
        SELECT p.change_seq, coalesce(s.change_seq, 0), s.scan_target_seq,
               to_regclass('search_runs_text_idx') IS NOT NULL
        FROM positions AS p LEFT JOIN search_progress AS s ON s.shard = p.shard
        ORDER BY p.shard
        """
    ).fetchall()
    cursor = tuple(done for _, done, _, _ in rows)
    pending = [now - done for now, done, _, _ in rows]
    is_indexed = all(indexed for _, _, _, indexed in rows)
    # During a scan, the index is current up to the number from before the scan.
    if not is_indexed or min(pending, default=0) < 0 or sum(pending) > max_behind:
        return None
    if not any(pending):
        return []
    changes = read_changes(connection, cursor)
    if changes is None:
        return None
    return [(each.shard, UUID(bytes=each.run)) for each in changes.changed]
