"""Read and delete stored rows as `RunRow` and `NodeRow`, the types of the fold."""

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg import sql

from runfold_storage.records.rows import NodeRow, RunRow, column_of
from runfold_storage.search.index_writer import delete_texts

Attempt = tuple[str, int]
"""(node, attempt): the key of a node's row within its run."""


class RunRows(NamedTuple):
    """The stored rows of one run."""

    row: RunRow | None
    nodes: dict[Attempt, NodeRow]


NOTHING_STORED: Final = RunRows(None, {})


def read_rows(
    connection: psycopg.Connection, shard: int, keys: Sequence[bytes]
) -> dict[bytes, RunRows]:
    """Return the rows of these runs of a shard, without runs that have none."""
    found: dict[bytes, RunRows] = {}
    wanted = (shard, [UUID(bytes=key) for key in keys])
    for shard_, run, *rest in connection.execute(_RUNS, wanted):
        row = RunRow(shard_, run.bytes, *rest)
        found[row.run] = RunRows(row, {})
    for shard_, run, *rest in connection.execute(_NODES, wanted):
        node = NodeRow(shard_, run.bytes, *rest)
        found.setdefault(node.run, RunRows(None, {})).nodes[node.node, node.attempt] = node
    return found


def delete_rows(
    connection: psycopg.Connection, shard: int, keys: Sequence[bytes]
) -> list[tuple[UUID, str]]:
    """Delete the rows of these runs and return (key, id) of each; the shard is locked.

    The caller logs them with `bump_generation`, unless no worker can have them cached.
    """
    wanted = (shard, [UUID(bytes=key) for key in keys])
    delete_texts(connection, *wanted)
    connection.execute("DELETE FROM nodes WHERE shard = %s AND run = ANY(%s::uuid[])", wanted)
    deleted = connection.execute(
        """
        DELETE FROM runs WHERE shard = %s AND run = ANY(%s::uuid[])
        RETURNING run, coalesce(external_id, run::text)
        """,
        wanted,
    )
    return deleted.fetchall()


def delete_attempts(connection: psycopg.Connection, nodes: Sequence[NodeRow]) -> None:
    """Delete these rows of `nodes`; their shards are locked."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "DELETE FROM nodes WHERE shard = %s AND run = %s AND node = %s AND attempt = %s",
            [(node.shard, UUID(bytes=node.run), node.node, node.attempt) for node in nodes],
        )


def _select(table: str, fields: Sequence[str]) -> sql.Composed:
    """Return the query of these fields."""
    columns = [
        sql.Identifier(name)
        if column_of(name) == name
        else sql.SQL("(extract(epoch FROM {}) * 1000000)::bigint").format(
            sql.Identifier(column_of(name))
        )
        for name in fields
    ]
    return sql.SQL("SELECT {} FROM {} WHERE shard = %s AND run = ANY(%s::uuid[])").format(
        sql.SQL(", ").join(columns), sql.Identifier(table)
    )


_RUNS: Final = _select("runs", RunRow._fields)
_NODES: Final = _select("nodes", NodeRow._fields)
