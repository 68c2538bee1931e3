"""Rows in PostgreSQL's binary COPY format, made here for the tables that every batch writes.

A general writer of rows takes three times as long. The format is that of PostgreSQL's manual,
"COPY: Binary Format": for each row the number of its fields, then each with its length, -1 for
null. Texts that come again and again (names, statuses) are encoded once.
"""

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec
import psycopg

from runfold.codec import TYPES

from .histogram import bin_of
from .rows import LedgerRow, NodeRow, RunRow, StatsDifference, StatsKey

EPOCH_2000_US: Final = 946_684_800_000_000
"""PostgreSQL's timestamps count microseconds from 2000-01-01 UTC."""

EVENT_FIELDS: Final = ("type", "shard", "run", "id", "at", "body")
NODE_FIELDS: Final = (
    *("shard", "run", "attempt", "input_tokens", "output_tokens", "cost_nano_usd"),
    *("started_at", "finished_at", "duration_us"),
    *("node", "name", "status", "node_type", "parents", "error_type", "error_message"),
)
RUN_FIELDS: Final = (
    *("shard", "run", "attempt", "feed_seq", "created_at", "seen_at"),
    *("input_tokens", "output_tokens", "cost_nano_usd"),
    *("nodes_total", "nodes_pending", "nodes_running", "nodes_completed"),
    *("nodes_failed", "nodes_skipped", "nodes_cancelled"),
    *("queued_at", "started_at", "finished_at", "duration_us", "exit_code"),
    *("project", "workflow", "status", "trigger_type", "user", "session"),
    *("given_id", "parent_run", "tags", "error_type", "error_message", "error_node"),
)
STATS_FIELDS: Final = (
    *("workflow", "project", "node", "hour", "status", "shard", "n", "n_timed"),
    *("duration_min_us", "duration_max_us", "duration_sum_us"),
    *("input_tokens", "output_tokens", "cost_nano_usd", "bins", "bin_counts"),
)
"""The order in which fields are encoded: COPY names them."""

_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_TWO_NULLS: Final = 2 * _NULL
_TOO_LARGE: Final = "a number is too large for its column"
_CHUNK_BYTES: Final = 256 * 1024
_MOST_TEXTS: Final = 10_000
_TEXT_OID: Final = 25
_INT2_OID: Final = 21
_INT8_OID: Final = 20

_EVENT: Final = struct.Struct(">i16siqiqi")
_NODE: Final = struct.Struct(">hihi16sihiqiqiq")
_RUN: Final = struct.Struct(">hihi16sihiqiqiqiqiqiq" + "ii" * 7)
_TIMES: Final = struct.Struct(">iqiqiq")
_INT8: Final = struct.Struct(">iq")
_INT4: Final = struct.Struct(">ii")
_SMALL: Final = struct.Struct(">ih")
_LENGTH: Final = struct.Struct(">i")
_STATS_HEAD: Final = struct.pack(">h", len(STATS_FIELDS))


def encode_events(events: Iterable[LedgerRow]) -> Iterator[bytes]:
    """Rows of the ledger."""
    heads: dict[tuple[int, int], bytes] = {}
    pack = _EVENT.pack
    parts = [_HEAD]
    size = 0
    for run, event_id, at_us, kind, shard, body in events:
        head = heads.get((kind, shard))
        if head is None:
            name = TYPES[kind].encode()
            head = struct.pack(f">hi{len(name)}sih", len(EVENT_FIELDS), len(name), name, 2, shard)
            heads[kind, shard] = head
        fields = pack(16, run, 8, event_id, 8, at_us - EPOCH_2000_US, len(body))
        parts += (head, fields, body)
        size += len(body)
        if size > _CHUNK_BYTES:
            yield b"".join(parts)
            parts.clear()
            size = 0
    parts.append(_END)
    yield b"".join(parts)


def encode_nodes(rows: Iterable[NodeRow]) -> bytes:
    """Rows of `nodes`; `psycopg.DataError` for a number that its column cannot hold."""
    parts = [_HEAD]
    pack, n, epoch = _NODE.pack, len(NODE_FIELDS), EPOCH_2000_US
    try:
        for (
            shard, run, node, attempt, name, status, node_type, parents, started_us, finished_us,
            duration_us, tokens_in, tokens_out, cost, error_type, message,
        ) in rows:  # fmt: skip
            if started_us is None or finished_us is None or duration_us is None:
                duration = _NULL if duration_us is None else _INT8.pack(8, duration_us)
                times = _time(started_us) + _time(finished_us) + duration
            else:
                times = _TIMES.pack(8, started_us - epoch, 8, finished_us - epoch, 8, duration_us)
            parts += (
                pack(n, 2, shard, 16, run, 2, attempt, 8, tokens_in, 8, tokens_out, 8, cost),
                times,
                _texts(node, name, status, node_type),
                _NULL if parents is None else _text_array(parents),
                _TWO_NULLS
                if error_type is None and message is None
                else _texts(error_type, message),
            )
    except struct.error as error:
        raise psycopg.DataError(f"nodes: {_TOO_LARGE}") from error
    parts.append(_END)
    return b"".join(parts)


def encode_runs(rows: Iterable[tuple[RunRow, int]]) -> bytes:
    """Rows of `runs`, each with its `feed_seq`; `psycopg.DataError` as with nodes."""
    parts = [_HEAD]
    pack, n, epoch = _RUN.pack, len(RUN_FIELDS), EPOCH_2000_US
    try:
        for (
            shard, run, given_id, project, workflow, status, attempt, parent_run, trigger_type,
            user, session, tags, created_us, queued_us, started_us, finished_us, seen_us,
            duration_us, tokens_in, tokens_out, cost, total, pending, running, completed, failed,
            skipped, cancelled, exit_code, error_type, message, error_node,
        ), feed_seq in rows:  # fmt: skip
            parts += (
                pack(
                    *(n, 2, shard, 16, run, 2, attempt, 8, feed_seq),
                    *(8, created_us - epoch, 8, seen_us - epoch),
                    *(8, tokens_in, 8, tokens_out, 8, cost, 4, total, 4, pending, 4, running),
                    *(4, completed, 4, failed, 4, skipped, 4, cancelled),
                ),
                _time(queued_us),
                _time(started_us),
                _time(finished_us),
                _NULL if duration_us is None else _INT8.pack(8, duration_us),
                _NULL if exit_code is None else _INT4.pack(4, exit_code),
                _texts(project, workflow, status, trigger_type),
                _texts(user, session),
                _texts(given_id, parent_run),
                _NULL if tags is None else _jsonb(tags),
                _texts(error_type, message, error_node),
            )
    except struct.error as error:
        raise psycopg.DataError(f"runs: {_TOO_LARGE}") from error
    parts.append(_END)
    return b"".join(parts)


def encode_stats(stats: Mapping[StatsKey, StatsDifference]) -> bytes:
    """Rows of `stats`, as differences."""
    parts = [_HEAD]
    try:
        for key, difference in stats.items():
            workflow, project, node, hour_us, status, shard = key
            durations = difference.durations
            came = [duration_us for duration_us, count in durations.items() if count > 0]
            bins: dict[int, int] = {}
            for duration_us, count in durations.items():
                index = bin_of(duration_us)
                bins[index] = bins.get(index, 0) + count
            parts += (
                _STATS_HEAD,
                _texts(workflow, project, node),
                _time(hour_us),
                _texts(status),
                _SMALL.pack(2, shard),
                _INT8.pack(8, difference.n),
                _INT8.pack(8, sum(durations.values())),
                _INT8.pack(8, min(came)) + _INT8.pack(8, max(came)) if came else _TWO_NULLS,
                _numeric(sum(length * count for length, count in durations.items())),
                _numeric(difference.input_tokens),
                _numeric(difference.output_tokens),
                _numeric(difference.cost_nano_usd),
                _int_array(bins.keys(), ">ih", 2, _INT2_OID),
                _int_array(bins.values(), ">iq", 8, _INT8_OID),
            )
    except struct.error as error:
        raise psycopg.DataError(f"stats: {_TOO_LARGE}") from error
    parts.append(_END)
    return b"".join(parts)


def _time(us: int | None) -> bytes:
    return _NULL if us is None else _INT8.pack(8, us - EPOCH_2000_US)


@lru_cache(_MOST_TEXTS)
def _texts(*values: str | None) -> bytes:
    return b"".join(_NULL if value is None else _sized(value.encode()) for value in values)


def _sized(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _text_array(values: Sequence[str]) -> bytes:
    """Dimensions, no nulls, the type's oid; then length and lower bound; then the elements."""
    if not values:
        return _sized(struct.pack(">iii", 0, 0, _TEXT_OID))
    head = struct.pack(">iiiii", 1, 0, _TEXT_OID, len(values), 1)
    return _sized(head + b"".join(_sized(value.encode()) for value in values))


def _jsonb(value: Mapping[str, str]) -> bytes:
    """The format's version, then the text."""
    return _sized(b"\x01" + msgspec.json.encode(value))


@lru_cache(_MOST_TEXTS)
def _numeric(value: int) -> bytes:
    """A whole number of any size: digits to the base of 10,000, most significant first."""
    digits = []
    rest = abs(value)
    while rest:
        rest, digit = divmod(rest, 10_000)
        digits.append(digit)
    digits.reverse()
    sign = 0x4000 if value < 0 else 0
    return _sized(
        struct.pack(f">hhHh{len(digits)}h", len(digits), len(digits) - 1, sign, 0, *digits)
    )


def _int_array(values: Collection[int], element: str, size: int, oid: int) -> bytes:
    if not values:
        return _sized(struct.pack(">iii", 0, 0, oid))
    pack = struct.Struct(element).pack
    head = struct.pack(">iiiii", 1, 0, oid, len(values), 1)
    return _sized(head + b"".join([pack(size, value) for value in values]))
