"""Looking a text up in the search index: the few runs that all matches are among.

Nothing is missed: what the index knows is good up to a number of each shard's changes, and the
runs that changed since are added, whatever they say. Whoever asks compares the texts themselves,
for an index of trigrams, and one that is behind, may name runs that do not match.

An index cannot always help: a text without three letters in a row, trigrams that each are
everywhere, more matches than can be sorted for every page, an index that is far behind or not there
at all. Then there is no answer, and a walk through the runs, which is bounded, has to do.
"""

from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from runfold_storage.change_feed.reader import read_changes
from runfold_storage.errors import BadParameter
from runfold_storage.filters.run_filter import RunFilter, tag_of
from runfold_storage.filters.search_text import has_trigram, pattern_of, selective_part
from runfold_storage.postgres.connections import explain
from runfold_storage.read_models.summaries import Searched

from .index_writer import Place

MAX_FOUND: Final = 2_000
"""Runs that an index may name: it knows no order."""
MAX_BEHIND: Final = 5_000
"""Changes that the index may be behind: their runs are looked at one by one."""
LOOK_UP_MS: Final = 150
"""How long the index may be asked."""

# With plans for these very texts: trigrams differ by more than any average tells.
_BEGIN: Final = f"""
    SAVEPOINT look_up;
    SET LOCAL statement_timeout = {LOOK_UP_MS};
    SET LOCAL plan_cache_mode = force_custom_plan;
    SET LOCAL enable_seqscan = off
"""
_END: Final = "ROLLBACK TO SAVEPOINT look_up; RELEASE SAVEPOINT look_up"


def find_runs(connection: Connection, wanted: RunFilter) -> list[Place] | None:
    """The runs among which all that match are, or None where the index cannot tell."""
    places = None
    if wanted.payload is not None and has_trigram(wanted.payload):
        places = _ask(connection, _OF_PAYLOADS, _about(wanted, wanted.payload))
    if places is None and wanted.q is not None and has_trigram(wanted.q):
        recent = _changed_since(connection)
        if recent is not None:
            statement = _OF_RUNS if tag_of(wanted.q) is None else _OF_RUNS_AND_TAGS
            places = _ask(connection, statement, _about(wanted, wanted.q))
        if places is not None and recent is not None:
            places = list({*places, *recent})
    return places


def read_searched(connection: Connection, project: str | None) -> Searched:
    """How much of the payloads has been searched; raises `BadParameter` if none ever is."""
    rows = connection.exec_driver_sql(
        """
        SELECT project, CASE WHEN NOT backfilled THEN coalesce(backfill_at, enabled_since) END
        FROM search_projects WHERE enabled AND (project = %(project)s OR %(project)s::text IS NULL)
        """,
        {"project": project},
    ).all()
    if not rows:
        whose = "no project has" if project is None else f"project {project} does not have"
        raise BadParameter(
            "payload",
            f"{whose} its payloads searched: runfold search set --project … --payloads on",
        )
    behind, up_to = connection.exec_driver_sql(
        """
        SELECT coalesce(sum(p.change_seq - coalesce(s.change_seq, 0)), 0)::bigint,
               CASE WHEN bool_and(p.change_seq = coalesce(s.change_seq, 0)) THEN now()
                    WHEN bool_or(s.changed_at IS NULL AND p.change_seq > 0) THEN NULL
                    ELSE min(s.changed_at) FILTER (WHERE p.change_seq > s.change_seq) END
        FROM positions AS p LEFT JOIN search_progress AS s ON s.shard = p.shard
        """
    ).one()
    since = [reached for _, reached in rows if reached is not None]
    return Searched(up_to, behind, max(since, default=None))


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


def _about(wanted: RunFilter, searched: str) -> dict[str, Any]:
    return {
        "pattern": pattern_of(selective_part(searched)),
        "project": wanted.project,
        "tag": Jsonb(tag_of(searched)),
        "most": MAX_FOUND + 1,
    }


def _ask(connection: Connection, statement: str, about: dict[str, Any]) -> list[Place] | None:
    """None if there are too many, or if it takes too long."""
    driver: Any = connection.connection.driver_connection
    try:
        driver.execute(_BEGIN)
        try:
            with driver.cursor(binary=True) as cursor:
                places: list[Place] = cursor.execute(statement, about).fetchall()
        except psycopg.errors.QueryCanceled:
            return None
        finally:
            driver.execute(_END)
    except psycopg.Error as error:
        raise explain(error) or error from error
    return places if len(places) <= MAX_FOUND else None


def _changed_since(connection: Connection) -> list[Place] | None:
    """The runs that the index has not looked at yet; None: too many, or there is no index."""
    rows = connection.exec_driver_sql(
        """
        SELECT p.change_seq, coalesce(s.change_seq, 0), s.scan_target_seq,
               to_regclass('search_runs_text_idx') IS NOT NULL
        FROM positions AS p LEFT JOIN search_progress AS s ON s.shard = p.shard
        ORDER BY p.shard
        """
    ).all()
    cursor = tuple(done for _, done, _, _ in rows)
    behind = [now - done for now, done, _, _ in rows]
    is_indexed = all(indexed for _, _, _, indexed in rows)
    # While runs are read through, the number that it is good for is the one from before that.
    if not is_indexed or min(behind, default=0) < 0 or sum(behind) > MAX_BEHIND:
        return None
    if not any(behind):
        return []
    changes = read_changes(connection, cursor)
    if changes is None:
        return None
    return [(each.shard, UUID(bytes=each.run)) for each in changes.changed]
