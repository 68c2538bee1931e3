"""Write runs to the search index, and delete them from it.

Each function runs one or two statements over many runs and writes only rows that differ. It takes
no lock that the fold or a deletion waits for, so a run may be indexed just after it was deleted.
The deletion is a later change in the feed and removes it again; until then lists do not show the
run, because they read `runs`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
from msgspec import Raw

from runfold_storage.filters.search_text import MAX_PAYLOAD, RUN_TEXT

RunKey = tuple[int, UUID]
"""Shard and key of a run."""

MAX_READ: Final = 256 * 1024
"""Bytes of a run's events to read for its payloads."""
LOCK: Final = 0x53524348
"""'SRCH': the class of the advisory locks; the second key is a shard, or `FOLLOWER`."""
FOLLOWER: Final = -1
PAYLOADS: Final = ("search_payloads",)
TABLES: Final = ("search_runs", *PAYLOADS)


def write_runs(connection: psycopg.Connection, run_keys: Sequence[RunKey]) -> int:
    """Write the texts of these runs; return how many rows changed."""
    written = connection.execute(
        f"""
        WITH texts AS MATERIALIZED (
            SELECT r.shard, r.run, {RUN_TEXT} AS text
            FROM unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
            JOIN runs AS r ON r.shard = k.shard AND r.run = k.run
            WHERE {_HAS_NO_TOMBSTONE}
        )
        INSERT INTO search_runs (shard, run, text)
        SELECT t.shard, t.run, t.text
        FROM texts AS t LEFT JOIN search_runs AS s ON s.shard = t.shard AND s.run = t.run
        WHERE s.text IS DISTINCT FROM t.text
        ORDER BY t.shard, t.run
        ON CONFLICT (shard, run) DO UPDATE SET text = excluded.text
        """,  # noqa: S608 - made of constants
        _columns(run_keys),
    )
    return written.rowcount


def write_payloads(connection: psycopg.Connection, run_keys: Sequence[RunKey]) -> int:
    """Write the inputs and outputs of finished runs whose project has them searched.

    Call in a transaction: retention, which deletes payloads, waits until it ends.
    """
    enabled = connection.execute(
        f"""
        SELECT r.shard, r.run, r.project FROM unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
        JOIN runs AS r ON r.shard = k.shard AND r.run = k.run
        JOIN search_projects AS p ON p.project = r.project AND p.enabled
        WHERE r.finished_at IS NOT NULL AND r.payloads_expired_at IS NULL AND {_HAS_NO_TOMBSTONE}
        """,  # noqa: S608 - made of constants
        _columns(run_keys),
    ).fetchall()
    if not enabled:
        return 0
    for shard in sorted({shard for shard, _, _ in enabled}):
        lock_payload_texts(connection, shard)
    projects = {(shard, run): project for shard, run, project in enabled}
    texts = _read_texts(connection, list(projects))
    if not texts:
        return 0
    written = connection.execute(
        """
        WITH texts AS MATERIALIZED (
            SELECT t.shard, t.run, t.project, lower(t.text) AS text
            FROM unnest(%s::smallint[], %s::uuid[], %s::text[], %s::text[])
                AS t (shard, run, project, text)
            JOIN runs AS r ON r.shard = t.shard AND r.run = t.run AND r.payloads_expired_at IS NULL
        )
        INSERT INTO search_payloads (shard, run, project, text)
        SELECT t.shard, t.run, t.project, t.text
        FROM texts AS t LEFT JOIN search_payloads AS s ON s.shard = t.shard AND s.run = t.run
        WHERE (s.text, s.project) IS DISTINCT FROM (t.text, t.project)
        ORDER BY t.shard, t.run
        ON CONFLICT (shard, run) DO UPDATE
        SET text = excluded.text, project = excluded.project
        """,
        (*_columns(list(texts)), [projects[run_key] for run_key in texts], list(texts.values())),
    )
    return written.rowcount


def delete_missing(connection: psycopg.Connection, run_keys: Sequence[RunKey]) -> None:
    """Delete the texts of those runs that are deleted, or are about to be."""
    condition = f"""
        USING unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
        WHERE s.shard = k.shard AND s.run = k.run AND NOT EXISTS (
            SELECT FROM runs AS r WHERE r.shard = k.shard AND r.run = k.run AND {_HAS_NO_TOMBSTONE}
        )
    """
    _delete(connection, condition, _columns(run_keys))


def delete_orphans(
    connection: psycopg.Connection, shard: int, after: UUID, last: UUID | None
) -> None:
    """Delete texts without a run between two keys; without `last`, all after the first."""
    condition = """
        WHERE s.shard = %(shard)s AND s.run > %(after)s
          AND (%(last)s::uuid IS NULL OR s.run <= %(last)s)
          AND NOT EXISTS (SELECT FROM runs AS r WHERE r.shard = s.shard AND r.run = s.run)
    """
    _delete(connection, condition, {"shard": shard, "after": after, "last": last})


def delete_texts(
    connection: psycopg.Connection, shard: int, runs: Sequence[UUID], tables: Sequence[str] = TABLES
) -> None:
    """Delete the texts of runs whose rows, or with `PAYLOADS` whose events, this transaction
    deletes; for events it has called `lock_payload_texts` first."""
    _delete(
        connection, "WHERE shard = %s AND run = ANY(%s::uuid[])", (shard, list(runs)), tables=tables
    )


def _delete(
    connection: psycopg.Connection, condition: str, given: Any, *, tables: Sequence[str] = TABLES
) -> None:
    for table in tables:
        connection.execute(f"DELETE FROM {table} AS s {condition}", given)  # noqa: S608


def lock_payload_texts(connection: psycopg.Connection, shard: int) -> None:
    """Keep other transactions from indexing or expiring payloads of this shard until the end.

    Payloads read before they expired must not be indexed afterwards, for no later change would
    remove them. Take this lock before the shard's checkpoint, for which the fold waits.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK, shard))


# Retention writes the tombstone first and deletes the row later.
_HAS_NO_TOMBSTONE: Final = """
    NOT EXISTS (SELECT FROM tombstones AS b WHERE b.shard = r.shard AND b.run = r.run)
"""

# `logged` carries no payload, and is most of a long ledger.
_PAYLOADS: Final = """
    SELECT shard, run, type::text, body FROM (
        SELECT e.shard, e.run, e.type, e.body, e.at, e.id, sum(octet_length(e.body))
            OVER (PARTITION BY e.shard, e.run ORDER BY e.at, e.id) AS bytes
        FROM unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
        JOIN events AS e ON e.shard = k.shard AND e.run = k.run
        WHERE e.type IN ('queued', 'started', 'node_started', 'node_finished', 'completed',
                         'failed')
    ) AS payloads
    WHERE bytes <= %s
    ORDER BY shard, run, at, id
"""


class _Payloads(msgspec.Struct):
    inputs: Raw = Raw(b"")
    outputs: Raw = Raw(b"")


_DECODER: Final = msgspec.json.Decoder(_Payloads)


def _read_texts(connection: psycopg.Connection, run_keys: Sequence[RunKey]) -> dict[RunKey, str]:
    """Return the searched part of each run's payloads: the run's own first, then its nodes'."""
    of_runs: dict[RunKey, list[str]] = defaultdict(list)
    of_nodes: dict[RunKey, list[str]] = defaultdict(list)
    for shard, run, event_type, body in connection.execute(
        _PAYLOADS, (*_columns(run_keys), MAX_READ)
    ):
        try:
            payloads = _DECODER.decode(body)
        except msgspec.DecodeError:  # unreadable for every reader; `verify` reports it
            continue
        texts = of_nodes if event_type.startswith("node_") else of_runs
        for raw in (payloads.inputs, payloads.outputs):
            text = bytes(raw)
            if b"\\u" in text:  # escaped letters
                text = msgspec.json.encode(msgspec.json.decode(text))
            if text not in (b"", b"null", b"{}"):
                texts[shard, run].append(text.decode())
    return {
        run_key: "\x1f".join(of_runs[run_key] + of_nodes[run_key])[:MAX_PAYLOAD]
        for run_key in run_keys
        if run_key in of_runs or run_key in of_nodes
    }


def _columns(run_keys: Sequence[RunKey]) -> tuple[list[int], list[UUID]]:
    return [shard for shard, _ in run_keys], [run for _, run in run_keys]
