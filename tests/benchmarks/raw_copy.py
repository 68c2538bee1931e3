"""Raw COPY: what PostgreSQL takes in when nothing but it works.

Binary COPY bytes of the workload's events, made before the clock starts, go into a table with the
ledger's columns and key, in the order and the transactions of a fold: 20,000 rows each. Types are
read from the ledger itself, so that a change of the ledger changes its yardstick too.
"""

import struct
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

import psycopg
from psycopg import sql

from benchmarks.workload import Frame, envelopes, frames
from runfold.protocol.codec import TYPE_NUMBERS, Envelope
from runfold.protocol.ids import run_key

ROWS_A_TRANSACTION: Final = 20_000

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_TRAILER: Final = struct.pack("!h", -1)
_EPOCH_2000_US: Final = 946_684_800_000_000
_INTEGERS: Final = {"smallint": "!ih", "integer": "!ii", "bigint": "!iq"}
_TABLE: Final = "copied"

Field = Callable[[int, Envelope], bytes]


class RawCopy:
    """The bytes of so many runs, one piece a transaction, ready to be copied again and again."""

    def __init__(self, database_url: str, runs: int, shards: int) -> None:
        with psycopg.connect(database_url) as connection:
            columns = _columns(connection)
        self._names = list(columns)
        rows = _rows(list(columns.values()), runs, shards)
        self._pieces: list[bytes] = []
        self.rows = 0
        while piece := list(islice(rows, ROWS_A_TRANSACTION)):
            self.rows += len(piece)
            self._pieces.append(b"".join((_HEADER, *piece, _TRAILER)))

    @property
    def bytes(self) -> int:
        """Of all pieces."""
        return sum(map(len, self._pieces))

    def measure(self, database_url: str) -> float:
        """Rows a second into an empty table, which is gone afterwards."""
        copy_from = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            sql.Identifier(_TABLE), sql.SQL(", ").join(map(sql.Identifier, self._names))
        )
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE TABLE {} (LIKE events INCLUDING ALL)").format(
                    sql.Identifier(_TABLE)
                )
            )
            try:
                connection.execute("CHECKPOINT")
                began = time.perf_counter()
                for piece in self._pieces:
                    with connection.cursor() as cursor, cursor.copy(copy_from) as copy:
                        copy.write(piece)
                return self.rows / (time.perf_counter() - began)
            finally:
                connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(_TABLE)))


def _columns(connection: psycopg.Connection) -> dict[str, Field]:
    """How each column of the ledger is filled; those with a default that we do not know are not."""
    rows = connection.execute(
        """
        SELECT a.attname, format_type(t.oid, NULL), t.typtype = 'e',
               a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
        FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = 'events'::regclass AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum
        """
    ).fetchall()
    fields = {}
    for name, kind, is_enum, is_needed in rows:
        field = _field(name, "enum" if is_enum else kind)
        if field is not None:
            fields[name] = field
        elif is_needed:
            raise LookupError(f"teach {__name__} to fill events.{name}, which is {kind}")
    return fields


def _field(name: str, kind: str) -> Field | None:
    """The binary form of a column of this name and type; None if we do not know it."""
    match name, kind:
        case "run", "uuid":
            return lambda _, envelope: b"\0\0\0\x10" + run_key(envelope.run).bytes
        case ("at", "timestamp with time zone"):
            return lambda _, envelope: struct.pack("!iq", 8, envelope.at_us - _EPOCH_2000_US)
        case ("type", "enum" | "text"):
            return lambda _, envelope: _sized(envelope.type.encode())
        case ("body", "text" | "bytea"):
            return lambda _, envelope: _sized(envelope.body)
        case ("id" | "shard" | "type" | "at_us", "smallint" | "integer" | "bigint"):
            return _integer(name, _INTEGERS[kind])
    return None


def _integer(name: str, form: str) -> Field:
    size = struct.calcsize(form) - 4
    take: dict[str, Callable[[int, Envelope], int]] = {
        "id": lambda _, envelope: envelope.id,
        "shard": lambda shard, _: shard,
        "type": lambda _, envelope: TYPE_NUMBERS[envelope.type],
        "at_us": lambda _, envelope: envelope.at_us,
    }
    value = take[name]
    return lambda shard, envelope: struct.pack(form, size, value(shard, envelope))


def _sized(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _rows(fields: list[Field], runs: int, shards: int) -> Iterator[bytes]:
    count = struct.pack("!h", len(fields))
    cut: Iterator[Frame] = frames(envelopes(runs, shards=shards, begin_us=time.time_ns() // 1000))
    for shard, events in cut:
        for envelope in events:
            yield count + b"".join([field(shard, envelope) for field in fields])
