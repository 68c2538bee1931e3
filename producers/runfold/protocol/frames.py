"""Frames: one Redis stream entry with one or more events of one shard.

A frame has one field: `events`, a JSON array that can be written by hand, or `packed`, a compact
encoding of the same events (`producers/PROTOCOL.md`). An invalid event is returned in its place as
`BrokenEvent`, with the reason and its bytes.
"""

import struct
import sys
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import msgspec
import zstandard
from msgspec import Raw

from runfold.errors import BrokenEvent, BrokenFrame

from .codec import (
    DEPTHS,
    MARKS,
    MAX_US,
    MIN_US,
    TYPE_NUMBERS,
    TYPES,
    Envelope,
    check_body,
    check_numbers,
    decode_body,
    decode_event,
    encode_event,
    replace_unstorable,
)
from .events import MAX_NAME, Event

EVENTS_FIELD: Final = b"events"
PACKED_FIELD: Final = b"packed"

FRAME_EVENTS: Final = 4096
FRAME_BYTES: Final = 512 * 1024
"""Writers close a frame with so many events, or with bodies of so many bytes."""
MAX_FRAME_EVENTS: Final = 2**16 - 1
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""Uncompressed: bounds the memory that a hostile frame can make a worker allocate."""

_MAGIC: Final = b"RF"
_PACKED_VERSION: Final = 1
_HEAD: Final = _MAGIC + bytes([_PACKED_VERSION])
_COUNTS: Final = struct.Struct("<HH")
_RAW_ITEMS: Final = msgspec.json.Decoder(list[Raw])


class Frame(NamedTuple):
    """The content of one stream entry, in its order, with errors in place of invalid events."""

    items: list[tuple[Envelope, Event] | BrokenEvent]

    @property
    def events(self) -> list[tuple[Envelope, Event]]:
        return [item for item in self.items if not isinstance(item, BrokenEvent)]

    @property
    def broken(self) -> list[BrokenEvent]:
        return [item for item in self.items if isinstance(item, BrokenEvent)]


def encode_json_frame(envelopes: Iterable[Envelope]) -> dict[bytes, bytes]:
    """Return the fields of a JSON frame."""
    return {EVENTS_FIELD: b"[" + b",".join(map(encode_event, envelopes)) + b"]"}


def encode_packed_frame(
    envelopes: Sequence[Envelope], compressor: zstandard.ZstdCompressor
) -> dict[bytes, bytes]:
    """Return the fields of a packed frame; at most `MAX_FRAME_EVENTS` events with valid bodies."""
    types, runs, ids, times, bodies = zip(*envelopes, strict=True)
    numbers = map(TYPE_NUMBERS.__getitem__, types)
    return {PACKED_FIELD: pack_columns(runs, numbers, ids, times, bodies, compressor)}


def pack_columns(
    runs: Sequence[str],
    types: Iterable[int],
    ids: Iterable[int],
    times: Iterable[int],
    bodies: Sequence[bytes],
    compressor: zstandard.ZstdCompressor,
    body_prefix: bytes = b"",
) -> bytes:
    """Return a packed frame from columns; `body_prefix` is prepended to each body."""
    table = {run: number for number, run in enumerate(dict.fromkeys(runs))}
    names = list(map(str.encode, table))
    numbers = array("H", map(table.__getitem__, runs))
    body_lengths = array("I", map(len(body_prefix).__add__, map(len, bodies)))
    columns = [array("Q", ids), array("q", times), body_lengths]
    name_lengths = array("H", map(len, names))
    if sys.byteorder == "big":
        for column in (numbers, name_lengths, *columns):
            column.byteswap()
    counts = _COUNTS.pack(len(numbers), len(names))
    parts: list[bytes | array[int]] = [counts, name_lengths, *names, numbers, bytes(types)]
    parts += columns
    return _HEAD + compressor.compress(body_prefix.join([b"".join(parts), *bodies]))


def decode_frame(fields: Mapping[bytes, bytes]) -> Frame:
    """Decode a stream entry; raise `BrokenFrame` if its events cannot be told apart."""
    if PACKED_FIELD in fields:
        return Frame(list(_read_packed(fields[PACKED_FIELD])))
    if EVENTS_FIELD in fields:
        return Frame(list(_read_json(fields[EVENTS_FIELD])))
    names = ", ".join(repr(name.decode(errors="replace")) for name in fields)
    raise BrokenFrame(f"no field `events` or `packed`, only {names}")


def size_of(fields: Mapping[bytes, bytes]) -> int:
    """Return the unpacked size of a frame in bytes, as its header states it."""
    packed = fields.get(PACKED_FIELD)
    if packed is None:
        return sum(map(len, fields.values()))
    try:
        return min(max(zstandard.frame_content_size(packed[3:]), len(packed)), MAX_FRAME_BYTES)
    except zstandard.ZstdError:
        return len(packed)


def _read_json(raw: bytes) -> Iterator[tuple[Envelope, Event] | BrokenEvent]:
    for item in _split_array(raw):
        try:
            yield decode_event(item)
        except BrokenEvent as error:
            error.raw = item
            yield error


def _split_array(raw: bytes) -> list[bytes]:
    if len(raw) > MAX_FRAME_BYTES:
        raise BrokenFrame(f"too large: {len(raw)} bytes, at most {MAX_FRAME_BYTES} are allowed")
    try:
        items = [bytes(item) for item in _RAW_ITEMS.decode(replace_unstorable(raw))]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        items = _split_leniently(raw)
    if not items:
        raise BrokenFrame("an empty array: a frame holds at least one event")
    return items


def _split_leniently(raw: bytes) -> list[bytes]:
    """Split an array that the parser rejects as a whole; `decode_event` checks each item."""
    start = len(raw) - len(raw.lstrip())
    if raw[start : start + 1] != b"[":
        raise BrokenFrame(f"not a JSON array: starts with {raw[:20]!r}")
    items: list[bytes] = []
    depth, begin = 0, start + 1
    for token in MARKS.finditer(raw, start):
        depth += DEPTHS.get(token[0], 0)
        if depth == 0 or (depth == 1 and token[0] == b","):
            items.append(raw[begin : token.start()])
            begin = token.end()
        if depth == 0:
            break
    items.append(raw[begin:])
    return [item for item in map(bytes.strip, items) if item]


def _read_packed(raw: bytes) -> Iterator[tuple[Envelope, Event] | BrokenEvent]:
    for packed in envelopes_in(raw):
        body = replace_unstorable(packed.body)
        envelope = packed if body is packed.body else packed._replace(body=body)
        try:
            yield envelope, _decode_packed(envelope)
        except BrokenEvent as error:
            error.raw = encode_event(envelope)
            yield error


def _decode_packed(envelope: Envelope) -> Event:
    if not MIN_US <= envelope.at_us <= MAX_US:
        raise BrokenEvent(f"at: {envelope.at_us} µs is not in the years 1 to 9999")
    check_body(envelope.body)
    check_numbers(envelope.body)
    event = decode_body(envelope.type, envelope.body)
    if event.run is not None or event.id is not None or event.at is not None:
        raise BrokenEvent("packed: a body has the further fields alone, not run, id or at")
    return event


def envelopes_in(raw: bytes) -> Iterator[Envelope]:
    """Return the envelopes in a packed frame, unchecked."""
    runs, *columns = unpack(raw)
    for number, kind, event_id, at_us, body in zip(*columns, strict=True):
        yield Envelope(TYPES[kind], runs[number], event_id, at_us, body)


class Columns(NamedTuple):
    """The columns of a packed frame, with one entry for each event except in `runs`.

    `run_numbers` are indexes into `runs`, `types` into `codec.TYPES`; `times` are in microseconds
    since the epoch, unchecked.
    """

    runs: list[str]
    run_numbers: tuple[int, ...]
    types: tuple[int, ...]
    ids: tuple[int, ...]
    times: tuple[int, ...]
    bodies: Sequence[bytes]


def unpack(raw: bytes) -> Columns:
    """Return the columns of a packed frame with unchecked bodies; raise `BrokenFrame`."""
    if raw[:2] != _MAGIC:
        raise BrokenFrame("packed: does not start with 'RF'")
    if raw[2:3] != bytes([_PACKED_VERSION]):
        raise BrokenFrame(
            f"newer version: packed frame {raw[2:3]!r}, this Runfold reads {_PACKED_VERSION}"
        )
    try:
        data = _decompress(raw[3:])
        n, n_runs = _COUNTS.unpack_from(data)
        lengths = struct.unpack_from(f"<{n_runs}H", data, _COUNTS.size)
        at = _COUNTS.size + 2 * n_runs
        runs = []
        for length in lengths:
            runs.append(data[at : at + length].decode())
            at += length
        columns = _columns_of(n)
        values = columns.unpack_from(data, at)
        at += columns.size
    except (struct.error, UnicodeDecodeError, zstandard.ZstdError) as error:
        raise BrokenFrame(f"packed: {error}") from error
    run_numbers, types = values[:n], values[n : 2 * n]
    ids, times, body_lengths = values[2 * n : 3 * n], values[3 * n : 4 * n], values[4 * n :]
    ends = list(accumulate(body_lengths, initial=at))
    if ends[-1] != len(data):
        raise BrokenFrame("packed: the bodies do not fill the frame")
    _check_columns(n, runs, run_numbers, types, ids)
    bodies = [data[begin:end] for begin, end in pairwise(ends)]
    return Columns(runs, run_numbers, types, ids, times, bodies)


@lru_cache(1000)
def _columns_of(n: int) -> struct.Struct:
    """Return the layout of run numbers, types, ids, times and lengths of `n` events."""
    return struct.Struct(f"<{n}H{n}B{n}Q{n}q{n}I")


def _check_columns(
    n: int,
    runs: list[str],
    run_numbers: tuple[int, ...],
    types: tuple[int, ...],
    ids: tuple[int, ...],
) -> None:
    """Raise `BrokenFrame` for invalid columns: their writer is faulty, so no event is trusted."""
    if n == 0:
        raise BrokenFrame("packed: a frame holds at least one event")
    lengths = list(map(len, runs))
    if runs and not 1 <= min(lengths) <= max(lengths) <= MAX_NAME:
        raise BrokenFrame("packed: expected run ids of 1 to 200 characters")
    if "\0" in "".join(runs):
        raise BrokenFrame("packed: expected run ids without U+0000")
    if max(run_numbers) >= len(runs):
        raise BrokenFrame("packed: expected run numbers within the table of runs")
    if max(types) >= len(TYPES):
        raise BrokenFrame("packed: expected known types")
    if max(ids) >= 2**63:
        raise BrokenFrame("packed: expected event ids below 2**63")


class _Decompressors(threading.local):
    """One for each thread: they must not be shared, and to make one costs more than a frame."""

    def __init__(self) -> None:
        self.own = zstandard.ZstdDecompressor()


_DECOMPRESSORS: Final = _Decompressors()


def _decompress(compressed: bytes) -> bytes:
    size = zstandard.frame_content_size(compressed)
    if not 0 <= size <= MAX_FRAME_BYTES:
        raise BrokenFrame(f"packed: {size} bytes uncompressed, at most {MAX_FRAME_BYTES} allowed")
    return _DECOMPRESSORS.own.decompress(compressed)
