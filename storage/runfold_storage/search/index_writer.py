"""Putting runs into the search index, and taking them out.

Each of these is one or two statements over many runs, and writes only what differs from what is
there. Nothing is locked that the fold or a deletion would wait for; so a run may be put in just
after it was deleted. Its deletion is a change that comes later in the feed, with which it goes
again, and until then nobody finds it, for lists look at `runs`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec
import psycopg
from msgspec import Raw

from runfold_storage.filters.search_text import MAX_PAYLOAD, RUN_TEXT

Place = tuple[int, UUID]
"""Shard and key of a run."""

MAX_READ: Final = 256 * 1024
"""Bytes of a run's events that are read for its payloads."""
LOCK: Final = 0x53524348
"""'SRCH': advisory locks; the second half is a shard, or `FOLLOWER`."""
FOLLOWER: Final = -1


def write_runs(connection: psycopg.Connection, places: Sequence[Place]) -> int:
    """What these runs are found by; returns how many there was something to write of."""
    written = connection.execute(
        f"""
        WITH told AS MATERIALIZED (
            SELECT r.shard, r.run, {RUN_TEXT} AS text
            FROM unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
            JOIN runs AS r ON r.shard = k.shard AND r.run = k.run
            WHERE {_NOT_BURIED}
        )
        INSERT INTO search_runs (shard, run, text)
        SELECT t.shard, t.run, t.text
        FROM told AS t LEFT JOIN search_runs AS s ON s.shard = t.shard AND s.run = t.run
        WHERE s.text IS DISTINCT FROM t.text
        ORDER BY t.shard, t.run
        ON CONFLICT (shard, run) DO UPDATE SET text = excluded.text
        """,  # noqa: S608 - made of constants
        _columns(places),
    )
    return written.rowcount


def write_payloads(connection: psycopg.Connection, places: Sequence[Place]) -> int:
    """Inputs and outputs of those that have ended, and whose project wants it.

    In a transaction: retention, which takes payloads away, waits until it ends.
    """
    wanted = connection.execute(
        f"""
        SELECT r.shard, r.run, r.project
        FROM unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
        JOIN runs AS r ON r.shard = k.shard AND r.run = k.run
        JOIN search_projects AS p ON p.project = r.project AND p.enabled
        WHERE r.finished_at IS NOT NULL AND r.payloads_expired_at IS NULL AND {_NOT_BURIED}
        """,  # noqa: S608 - made of constants
        _columns(places),
    ).fetchall()
    if not wanted:
        return 0
    for shard in sorted({shard for shard, _, _ in wanted}):
        hold_payloads(connection, shard)
    projects = {(shard, run): project for shard, run, project in wanted}
    texts = _read_texts(connection, list(projects))
    if not texts:
        return 0
    written = connection.execute(
        """
        WITH told AS MATERIALIZED (
            SELECT t.shard, t.run, t.project, lower(t.text) AS text
            FROM unnest(%s::smallint[], %s::uuid[], %s::text[], %s::text[])
                AS t (shard, run, project, text)
            JOIN runs AS r ON r.shard = t.shard AND r.run = t.run AND r.payloads_expired_at IS NULL
        )
        INSERT INTO search_payloads (shard, run, project, text)
        SELECT t.shard, t.run, t.project, t.text
        FROM told AS t LEFT JOIN search_payloads AS s ON s.shard = t.shard AND s.run = t.run
        WHERE (s.text, s.project) IS DISTINCT FROM (t.text, t.project)
        ORDER BY t.shard, t.run
        ON CONFLICT (shard, run) DO UPDATE
        SET text = excluded.text, project = excluded.project
        """,
        (
            *_columns(list(texts)),
            [projects[place] for place in texts],
            list(texts.values()),
        ),
    )
    return written.rowcount


def remove(connection: psycopg.Connection, places: Sequence[Place]) -> None:
    """Those of them that are not there any more, or soon will not be."""
    for table in ("search_runs", "search_payloads"):
        connection.execute(
            f"""
            DELETE FROM {table} AS s
            USING unnest(%s::smallint[], %s::uuid[]) AS k (shard, run)
            WHERE s.shard = k.shard AND s.run = k.run AND NOT EXISTS (
                SELECT FROM runs AS r
                WHERE r.shard = k.shard AND r.run = k.run AND {_NOT_BURIED}
            )
            """,  # noqa: S608 - made of constants
            _columns(places),
        )


def remove_strays(
    connection: psycopg.Connection, shard: int, after: UUID, last: UUID | None
) -> None:
    """Whatever stands between two keys and has no run; without `last`, all that comes after."""
    for table in ("search_runs", "search_payloads"):
        connection.execute(
            f"""
            DELETE FROM {table} AS s
            WHERE s.shard = %(shard)s AND s.run > %(after)s
              AND (%(last)s::uuid IS NULL OR s.run <= %(last)s)
              AND NOT EXISTS (SELECT FROM runs AS r WHERE r.shard = s.shard AND r.run = s.run)
            """,  # noqa: S608 - made of constants
            {"shard": shard, "after": after, "last": last},
        )


def forget_runs(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Runs whose rows go in this transaction."""
    for table in ("search_runs", "search_payloads"):
        connection.execute(
            f"DELETE FROM {table} WHERE shard = %s AND run = ANY(%s::uuid[])",  # noqa: S608
            (shard, list(runs)),
        )


def forget_payloads(connection: psycopg.Connection, shard: int, runs: Sequence[UUID]) -> None:
    """Runs that lose their payloads in this transaction, which has begun with `hold_payloads`."""
    connection.execute(
        "DELETE FROM search_payloads WHERE shard = %s AND run = ANY(%s::uuid[])",
        (shard, list(runs)),
    )


def hold_payloads(connection: psycopg.Connection, shard: int) -> None:
    """Nobody puts payloads of this shard in, or takes them away by age, until the end.

    Payloads that were read before they aged must not be put in afterwards: no change would tell
    of it. To be taken before the shard's checkpoint, for which the fold waits.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK, shard))


# What retention is about to take away is buried first; its row goes later.
_NOT_BURIED: Final = """
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
    ) AS told
    WHERE bytes <= %s
    ORDER BY shard, run, at, id
"""


class _Payloads(msgspec.Struct):
    inputs: Raw = Raw(b"")
    outputs: Raw = Raw(b"")


_DECODER: Final = msgspec.json.Decoder(_Payloads)


def _read_texts(connection: psycopg.Connection, places: Sequence[Place]) -> dict[Place, str]:
    """Those of the run itself first, then of its nodes; only so much of it as is searched."""
    of_runs: dict[Place, list[str]] = defaultdict(list)
    of_nodes: dict[Place, list[str]] = defaultdict(list)
    for shard, run, event_type, body in connection.execute(
        _PAYLOADS, (*_columns(places), MAX_READ)
    ):
        try:
            payloads = _DECODER.decode(body)
        except msgspec.DecodeError:  # nobody else can read it either: `verify` tells of it
            continue
        texts = of_nodes if event_type.startswith("node_") else of_runs
        for raw in (payloads.inputs, payloads.outputs):
            if bytes(raw) not in (b"", b"null", b"{}"):
                texts[shard, run].append(_plain(bytes(raw)))
    return {
        place: "\x1f".join(of_runs[place] + of_nodes[place])[:MAX_PAYLOAD]
        for place in places
        if place in of_runs or place in of_nodes
    }


def _plain(raw: bytes) -> str:
    """JSON as it was sent, but letters as letters."""
    if b"\\u" in raw:
        raw = msgspec.json.encode(msgspec.json.decode(raw))
    return raw.decode()


def _columns(places: Sequence[Place]) -> tuple[list[int], list[UUID]]:
    return [shard for shard, _ in places], [run for _, run in places]
