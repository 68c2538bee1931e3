"""Encode the rows of a batch in PostgreSQL's binary format (`postgres.binary_format`).

There are two formats: rows for COPY, and elements of an array of records.
"""

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import psycopg

from runfold.protocol.codec import TYPES
from runfold_storage.postgres.binary_format import (
    EPOCH_2000_US,
    RECORDS,
    WireFormat,
)

from .histogram import bin_of
from .rollup import ROLLUP_KEY, ROLLUP_VALUES, RollupDelta, RollupKey
from .rows import LedgerRow, NodeRow, RunRow

EVENT_FIELDS: Final = ("type", "shard", "run", "id", "at", "body")
NODE_FIELDS: Final = (
    *("shard", "run", "attempt", "input_tokens", "output_tokens", "cost_nano_usd"),
    *("started_at", "finished_at", "duration_us"),
    *("node", "name", "status", "node_type", "parents", "error_type", "error_message"),
)
RUN_FIELDS: Final = (
    *("shard", "run", "attempt", "change_seq", "created_at", "last_event_at"),
    *("input_tokens", "output_tokens", "cost_nano_usd"),
    *("nodes_total", "nodes_pending", "nodes_running", "nodes_completed"),
    *("nodes_failed", "nodes_skipped", "nodes_cancelled"),
    *("queued_at", "started_at", "finished_at", "duration_us", "exit_code"),
    *("project", "workflow", "status", "trigger_type", "user", "session"),
    *("external_id", "parent_run", "tags", "error_type", "error_message", "error_node"),
)
"""The order in which fields are encoded; COPY names its columns in this order."""

_TOO_LARGE: Final = "a number is too large for its column"
_MOST_KEYS: Final = 10_000
_CHUNK_BYTES: Final = 256 * 1024
"""Memory of this size is used again; for much larger strings the system clears new pages."""


def encode_events(events: Iterable[LedgerRow], form: WireFormat) -> list[bytes]:
    """Encode events, in chunks; the type is a text."""
    p, begin, oid, n_fields = form.prefix, form.begin_row, form.text_oid, len(EVENT_FIELDS)
    pack = struct.Struct(f">{p}16s{p}q{p}q{'i' * len(oid)}i").pack
    pack_shard = struct.Struct(f">{p}h").pack
    uuid, int8, time, epoch = form.uuid, form.int8, form.time, EPOCH_2000_US
    heads: dict[tuple[int, int], bytes] = {}
    chunks, parts, size = [form.head], [], 0
    for run, event_id, at_us, kind, shard, body in events:
        head = heads.get((kind, shard))
        if head is None:
            head = form.texts(TYPES[kind]) + pack_shard(form.int2, shard)
            head = heads[kind, shard] = head if oid else begin(0, n_fields) + head
        fields = pack(uuid, run, int8, event_id, time, at_us - epoch, *oid, len(body))
        if oid:
            parts.append(begin(len(head) + len(fields) + len(body), n_fields))
        parts += (head, fields, body)
        size += len(body)
        if size > _CHUNK_BYTES:
            chunks.append(b"".join(parts))
            parts.clear()
            size = 0
    return [*chunks, b"".join(parts), form.end]


def encode_nodes(rows: Iterable[NodeRow], form: WireFormat) -> bytes:
    """Encode nodes; raise `psycopg.DataError` for a number that its column cannot hold."""
    p = form.prefix
    pack = struct.Struct(f">{p}h{p}16s{p}h{p}q{p}q{p}q").pack
    int2, int8, uuid = form.int2, form.int8, form.uuid
    texts, time_or_null, no_error = form.texts, form.time_or_null, 2 * form.no_text
    encoded = []
    try:
        for (
            shard, run, node, attempt, name, status, node_type, parents, started_us, finished_us,
            duration_us, tokens_in, tokens_out, cost, error_type, message,
        ) in rows:  # fmt: skip
            fields = (
                pack(
                    *(int2, shard, uuid, run, int2, attempt),
                    *(int8, tokens_in, int8, tokens_out, int8, cost),
                ),
                time_or_null(started_us),
                time_or_null(finished_us),
                form.int8_or_null(duration_us),
                texts(node, name, status, node_type),
                form.no_texts if parents is None else form.text_array(parents),
                no_error if error_type is message is None else texts(error_type, message),
            )
            encoded.append(b"".join(fields))
    except struct.error as error:
        raise psycopg.DataError(f"nodes: {_TOO_LARGE}") from error
    return form.rows(encoded, len(NODE_FIELDS))


def encode_runs(rows: Iterable[tuple[RunRow, int]], form: WireFormat) -> bytes:
    """Encode runs, each with its `change_seq`; raise `psycopg.DataError` as with nodes."""
    p = form.prefix
    pack = struct.Struct(f">{p}h{p}16s{p}h" + f"{p}q" * 6 + f"{p}i" * 7).pack
    int2, int4, int8, uuid, time = form.int2, form.int4, form.int8, form.uuid, form.time
    texts, time_or_null, epoch = form.texts, form.time_or_null, EPOCH_2000_US
    encoded = []
    try:
        for (
            shard, run, external_id, project, workflow, status, attempt, parent_run, trigger_type,
            user, session, tags, created_us, queued_us, started_us, finished_us, last_event_us,
            duration_us, tokens_in, tokens_out, cost, total, pending, running, completed, failed,
            skipped, cancelled, exit_code, error_type, message, error_node,
        ), change_seq in rows:  # fmt: skip
            fields = (
                pack(
                    *(int2, shard, uuid, run, int2, attempt, int8, change_seq),
                    *(time, created_us - epoch, time, last_event_us - epoch),
                    *(int8, tokens_in, int8, tokens_out, int8, cost),
                    *(int4, total, int4, pending, int4, running, int4, completed),
                    *(int4, failed, int4, skipped, int4, cancelled),
                ),
                time_or_null(queued_us),
                time_or_null(started_us),
                time_or_null(finished_us),
                form.int8_or_null(duration_us),
                form.int4_or_null(exit_code),
                texts(project, workflow, status, trigger_type),
                texts(user, session),
                texts(external_id, parent_run),
                form.no_jsonb if tags is None else form.jsonb(tags),
                texts(error_type, message, error_node),
            )
            encoded.append(b"".join(fields))
    except struct.error as error:
        raise psycopg.DataError(f"runs: {_TOO_LARGE}") from error
    return form.rows(encoded, len(RUN_FIELDS))


def encode_stats(stats: Mapping[RollupKey, RollupDelta]) -> bytes:
    """Rows of `rollups_hourly`, as differences, for an array of records."""
    try:
        encoded = [_key(*key) + _figures(difference) for key, difference in stats.items()]
    except struct.error as error:
        raise psycopg.DataError(f"stats: {_TOO_LARGE}") from error
    return RECORDS.rows(encoded, len(ROLLUP_KEY + ROLLUP_VALUES))


@lru_cache(_MOST_KEYS)
def _key(workflow: str, project: str, node: str, hour_us: int, status: str, shard: int) -> bytes:
    texts, time = RECORDS.texts, RECORDS.time_or_null
    shard_field = _SHARD.pack(RECORDS.int2, shard)
    return texts(workflow, project, node) + time(hour_us) + texts(status) + shard_field


def _figures(difference: RollupDelta) -> bytes:
    durations, numeric, int8 = difference.durations, RECORDS.numeric, RECORDS.int8_or_null
    amounts = numeric(difference.input_tokens) + numeric(difference.output_tokens)
    amounts += numeric(difference.cost_nano_usd)
    if not durations:
        return int8(difference.n) + _NO_DURATIONS + amounts + _NO_BINS
    came = [duration_us for duration_us, count in durations.items() if count > 0]
    bins: dict[int, int] = {}
    for duration_us, count in durations.items():
        index = bin_of(duration_us)
        bins[index] = bins.get(index, 0) + count
    return b"".join(
        (
            int8(difference.n),
            int8(sum(durations.values())),
            int8(min(came, default=None)),
            int8(max(came, default=None)),
            numeric(sum(length * count for length, count in durations.items())),
            amounts,
            _histogram(*bins.items()),
        )
    )


@lru_cache(_MOST_KEYS)
def _histogram(*bins: tuple[int, int]) -> bytes:
    indexes, counts = zip(*bins, strict=True)
    return RECORDS.int2_array(indexes) + RECORDS.int8_array(counts)


_SHARD: Final = struct.Struct(f">{RECORDS.prefix}h")
_NO_DURATIONS: Final = RECORDS.int8_or_null(0) + 2 * RECORDS.no_int8 + RECORDS.numeric(0)
_NO_BINS: Final = RECORDS.int2_array(()) + RECORDS.int8_array(())
