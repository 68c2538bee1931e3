"""Malformed frames and events through a real worker: dead letters, and nothing else is hurt."""

import json
import struct
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import redis
import zstandard

from conditions import is_folded, run_fold_worker, wait_until
from event_histories import NOON_US, to_fields
from oracle import Event, project, to_envelope
from runfold.protocol.codec import TYPE_NUMBERS, Envelope, encode_event, to_rfc3339
from stream_frames import add_frame
from table_reader import read_dead_letters, read_projection

SHARDS = 1
AT = to_rfc3339(NOON_US)

Fields = dict[bytes, bytes]
FoldFrames = Callable[[list[Fields]], list[tuple[int, str, int, str, bytes]]]


@pytest.fixture
def fold_frames(
    client: redis.Redis, database: psycopg.Connection, redis_url: str, migrated_url: str
) -> FoldFrames:
    """Send frames, let a worker fold them, see that it lives, and return the dead letters."""

    def fold(frames: list[Fields]) -> list[tuple[int, str, int, str, bytes]]:
        for frame in frames:
            add_frame(client, 0, frame)
        with run_fold_worker(redis_url, migrated_url, SHARDS) as thread:
            wait_until(
                lambda: is_folded(client, database) or not thread.is_alive(), what="the frames"
            )
            assert thread.is_alive()
        # What the ledger took, anyone can read as JSON.
        database.execute("SELECT count(body), count(body::text) FROM ledger")
        return read_dead_letters(database)

    return fold


def started(run: str = "neighbour", event_id: int = 0, **fields: Any) -> Event:
    return {"type": "started", "run": run, "id": event_id, "at_us": NOON_US, **fields}


BEFORE, AFTER = started("before", user="ada"), started("after", user="bob")


def json_frame(*raw: bytes) -> Fields:
    return {b"events": b"[" + b",".join(raw) + b"]"}


def written(event: Event) -> bytes:
    return encode_event(to_envelope(event))


def wire(**changes: Any) -> bytes:
    """A good event with some fields changed, or left out where they are None."""
    event = {"type": "started", "run": "bad", "id": 7, "at": AT, "v": 1} | changes
    given = {name: value for name, value in event.items() if value is not None}
    return json.dumps(given).encode()


def with_inputs(raw: bytes) -> bytes:
    """An event whose payload is these bytes."""
    return wire()[:-1] + b', "inputs": ' + raw + b"}"


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


BROKEN_EVENTS = {
    "an unknown type": (wire(type="sung"), "unknown type 'sung'"),
    "no type": (wire(type=None), "unknown type None"),
    "a type that is a number": (wire(type=3), "unknown type 3"),
    "a newer version": (wire(v=2), "newer version: v is 2"),
    "a version of five thousand digits": (
        wire()[:-1].replace(b'"v": 1', b'"v": ' + b"9" * 5000) + b"}",
        "",
    ),
    "a version that is text": (wire(v="1"), "v: expected 1"),
    "no run": (wire(run=None), "missing required field `run`"),
    "an empty run id": (wire(run=""), "length >= 1"),
    "a run id of 300 characters": (wire(run="x" * 300), "length <= 200"),
    "U+0000 in a run id": (wire(run="a\0b"), "U+0000"),
    "a lone surrogate in a run id": (wire(run="a\ud800b"), "lone surrogates"),
    "no time": (wire(at=None), "missing required field `at`"),
    "a time without a zone": (wire(at="2026-01-01T00:00:00"), "at"),
    "a time out of range": (wire(at="0001-01-01T00:00:00+10:00"), "out of range"),
    "a time that is a number": (wire(at=NOON_US), "at"),
    "a negative id": (wire(id=-1), "id"),
    "an id beyond 63 bits": (wire(id=2**63), "id"),
    "an id that is text": (wire(id="7"), "id"),
    "a number for a name": (wire(workflow=3), "workflow"),
    "an empty name": (wire(workflow=""), "workflow"),
    "a tag that is a list": (wire(tags={"a": [1]}), "tags"),
    "a plan without names": (wire(nodes=[{}]), "node"),
    "attempt zero": (wire(attempt=0), "attempt"),
    "no node": (wire(type="node_started"), "node"),
    "a status that there is not": (
        wire(type="node_finished", node="n", status="lost"),
        "status",
    ),
    "a negative duration": (wire(type="completed", duration_ms=-1), "duration_ms"),
    "costs without end": (wire(type="completed", usage={"cost_usd": 1e300}), "cost_usd"),
    "an exit code of 64 bits": (wire(type="completed", exit_code=2**40), "exit_code"),
    "a number that is not one": (with_inputs(b"NaN"), "not JSON"),
    "infinity": (with_inputs(b"-Infinity"), "not JSON"),
    "a number beyond a double": (with_inputs(b"1e400"), "Number out of range"),
    "a number of five thousand digits": (with_inputs(b"9" * 5000), "out of range"),
    "bytes that are not UTF-8": (with_inputs(b'"\xff\xfe"'), "not UTF-8"),
    "a surrogate in UTF-8": (with_inputs(b'"\xed\xa0\x80"'), "not UTF-8"),
    "a control character": (with_inputs(b'"\x01"'), "not JSON"),
    "an escape that there is not": (with_inputs(b'"\\x41"'), "not JSON"),
    "too much": (with_inputs(b"[" + b"0," * 600_000 + b"0]"), "too large"),
    "10,000 levels": (with_inputs(nested(10_000)), "nested too deeply"),
    "200,000 levels": (with_inputs(nested(200_000)), "nested too deeply"),
    "150,000 objects": (with_inputs(b'{"a":' * 150_000 + b"1" + b"}" * 150_000), "nested"),
    "a number": (b"17", "an event is a JSON object, not int"),
    "a list": (b"[1, 2]", "an event is a JSON object, not array"),
    "null": (b"null", "an event is a JSON object, not null"),
    "a word": (b"nonsense", "not JSON"),
}


def test_broken_events_are_dead_letters_and_their_neighbours_fold(
    fold_frames: FoldFrames, database: psycopg.Connection
) -> None:
    """Each with its place and a reason that says which part is wrong."""
    good = [started(f"run {n}") for n in range(2 * len(BROKEN_EVENTS))]
    neighbours = zip(map(written, good[::2]), map(written, good[1::2]), strict=True)
    frames = [
        json_frame(before, raw, after)
        for (before, after), (raw, _) in zip(neighbours, BROKEN_EVENTS.values(), strict=True)
    ]

    letters = fold_frames(frames)

    for (what, (_, reason)), letter in zip(BROKEN_EVENTS.items(), letters, strict=True):
        _, _, ordinal, found, raw = letter
        assert ordinal == 1, what
        assert reason in found, what
        assert raw, what
    assert read_projection(database) == project(good, SHARDS)


def test_all_broken_events_in_one_frame(
    fold_frames: FoldFrames, database: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Even the worst company does not keep the good ones from folding; the worker logs how many."""
    raws = [raw for raw, _ in BROKEN_EVENTS.values()]
    good = [started(f"run {n}") for n in range(len(raws))]
    items = [item for pair in zip(raws, map(written, good), strict=True) for item in pair]

    letters = fold_frames([json_frame(*items)])

    assert [letter[2] for letter in letters] == list(range(0, len(items), 2))
    (told,) = [record for record in caplog.records if "dead_letters" in record.getMessage()]
    assert vars(told)["number"] == len(letters)
    assert read_projection(database) == project(good, SHARDS)


def test_an_event_without_an_end_takes_what_follows_along(
    fold_frames: FoldFrames, database: psycopg.Connection
) -> None:
    """Nobody can tell where it ends: the dead letter has all of it."""
    letters = fold_frames([json_frame(written(BEFORE), wire()[:-20], written(AFTER))])

    assert [letter[2] for letter in letters] == [1]
    assert written(AFTER) in letters[0][4]
    assert read_projection(database) == project([BEFORE], SHARDS)


def test_an_array_cut_short_loses_only_its_last_event(
    fold_frames: FoldFrames, database: psycopg.Connection
) -> None:
    """A frame whose end is missing: what was whole folds."""
    whole = json_frame(written(BEFORE), written(AFTER), wire())[b"events"]

    letters = fold_frames([{b"events": whole[:-30]}])

    assert [letter[2] for letter in letters] == [2]
    assert read_projection(database) == project([BEFORE, AFTER], SHARDS)


def test_what_postgresql_cannot_store_is_replaced_visibly(
    fold_frames: FoldFrames, database: psycopg.Connection
) -> None:
    """U+0000 and lone surrogates become U+FFFD in every text, in JSON frames and packed ones."""
    bad, mended = "a\0b\ud800c\udfff✓\\u0000", "a\ufffdb\ufffdc\ufffd✓\\u0000"

    def telling(text: str, event_id: int) -> list[Event]:
        return [
            started("r", event_id, user=text, tags={text: text}, inputs={text: [text, "🙂"]}),
            {"type": "logged", "run": "r", "id": event_id + 1, "at_us": NOON_US, "text": text},
        ]

    letters = fold_frames(
        [
            json_frame(*map(written, telling(bad, 0))),
            to_fields(map(to_envelope, telling(bad, 2)), packed=True),
        ]
    )

    assert letters == []
    expected = project([*telling(mended, 0), *telling(mended, 2)], SHARDS)
    assert read_projection(database) == expected


def test_what_is_odd_but_right_folds(fold_frames: FoldFrames, database: psycopg.Connection) -> None:
    """Unknown fields, huge but finite numbers, deep but bounded payloads, white space."""
    odd = [
        started("r", 0, colour="blue", inputs={"n": 1e22, "big": 2**80, "": ""}),
        started("r", 1, inputs=json.loads(nested(126))),
        started("r", 2, tags={"a": True, "b": 1e16, "c": -0.0}),
    ]
    spaced = json.dumps(
        {"at": AT, "user": "ada", "id": 3, "run": "r", "type": "started"}, indent=2
    ).encode()

    letters = fold_frames(
        [{b"events": b" [\n" + b" , ".join([*map(written, odd), spaced]) + b"] "}]
    )

    assert letters == []
    assert read_projection(database) == project([*odd, started("r", 3, user="ada")], SHARDS)


def test_an_event_without_an_id_counts_once(
    fold_frames: FoldFrames, database: psycopg.Connection
) -> None:
    """The same content gets the same id, however often it comes and however it is spelled."""
    spelled = wire(id=None, inputs={"n": 2**80, "f": 1.5})
    again = json.dumps(dict(reversed(json.loads(spelled).items())), indent=1).encode()

    letters = fold_frames([json_frame(spelled, again), json_frame(spelled)])

    assert letters == []
    assert len(read_projection(database).ledger) == 1


def packed(data: bytes, *, magic: bytes = b"RF\x01", size: int | None = None) -> Fields:
    """A packed frame of these bytes; `size`: what it says of its own size."""
    compressed = zstandard.ZstdCompressor().compress(data)
    if size is not None:
        # RFC 8878 §3.1.1.1: a single segment, and a content size of eight bytes.
        compressed = compressed[:4] + b"\xe0" + struct.pack("<Q", size) + compressed[6:]
    return {b"packed": magic + compressed}


def columns(
    *,
    runs: tuple[bytes, ...] = (b"r",),
    number: int = 0,
    kind: int = TYPE_NUMBERS["started"],
    event_id: int = 0,
    at_us: int = NOON_US,
    body: bytes = b"{}",
    length: int | None = None,
) -> bytes:
    """What a packed frame of one event holds."""
    head = struct.pack(f"<HH{len(runs)}H", 1, len(runs), *map(len, runs)) + b"".join(runs)
    size = len(body) if length is None else length
    return head + struct.pack("<HBQqI", number, kind, event_id, at_us, size) + body


GOOD = packed(columns())[b"packed"]
BROKEN_FRAMES: dict[str, tuple[Fields, str]] = {
    "another field": ({b"event": b"{}"}, "no field `events` or `packed`, only 'event'"),
    "a field that is not text": ({b"\xff\0": b"x"}, "no field `events` or `packed`"),
    "nothing in it": ({b"events": b""}, "not a JSON array"),
    "an empty array": ({b"events": b"[]"}, "an empty array"),
    "not JSON": ({b"events": b"started!"}, "not a JSON array"),
    "an object": ({b"events": wire()}, "not a JSON array"),
    "bytes": ({b"events": bytes(range(256))}, "not a JSON array"),
    "packed: nothing": ({b"packed": b""}, "does not start with 'RF'"),
    "packed: bad magic": (packed(columns(), magic=b"XX\x01"), "does not start with 'RF'"),
    "packed: newer": (packed(columns(), magic=b"RF\x02"), "newer version"),
    "packed: cut": ({b"packed": GOOD[:-5]}, "packed: "),
    "packed: only a head": ({b"packed": GOOD[:3]}, "packed: "),
    "packed: not zstd": ({b"packed": b"RF\x01 not compressed"}, "packed: "),
    "packed: empty inside": (packed(b""), "packed: "),
    "packed: no events": (packed(struct.pack("<HH", 0, 0)), "at least one event"),
    "packed: counts too high": (packed(struct.pack("<HH", 65535, 65535)), "packed: "),
    "packed: bodies too short": (packed(columns(length=9)), "do not fill the frame"),
    "packed: bodies too long": (packed(columns() + b"more"), "do not fill the frame"),
    "packed: no such run": (packed(columns(number=1)), "run numbers"),
    "packed: no such type": (packed(columns(kind=200)), "known types"),
    "packed: an id of 64 bits": (packed(columns(event_id=2**63)), "event ids"),
    "packed: an empty run id": (packed(columns(runs=(b"",))), "run ids of 1 to 200"),
    "packed: a long run id": (packed(columns(runs=(b"x" * 201,))), "run ids of 1 to 200"),
    "packed: U+0000 in a run id": (packed(columns(runs=(b"a\0b",))), "U+0000"),
    "packed: a surrogate in a run id": (packed(columns(runs=(b"\xed\xa0\x80",))), "packed: "),
    "packed: a bomb": (packed(bytes(65 * 1024 * 1024)), "uncompressed"),
    "packed: a terabyte, it says": (packed(columns(), size=2**40), "uncompressed"),
    "packed: says less than it is": (packed(columns(body=b" " * 99), size=9), "packed: "),
}


def test_broken_frames_are_dead_letters_and_the_frames_around_them_fold(
    fold_frames: FoldFrames, database: psycopg.Connection
) -> None:
    """Each is one dead letter with its bytes and the reason, in the order in which they came."""
    between = [started(f"run {n}") for n in range(len(BROKEN_FRAMES) + 1)]
    frames = [json_frame(written(between[0]))]
    for (broken, _), good in zip(BROKEN_FRAMES.values(), between[1:], strict=True):
        frames += [broken, to_fields([to_envelope(good)], packed=True)]

    letters = fold_frames(frames)

    found = dict(zip(BROKEN_FRAMES, letters, strict=True))
    for what, (fields, reason) in BROKEN_FRAMES.items():
        assert reason in found[what][3], what
        assert found[what][4] == b"".join(fields.values()), what
    assert read_projection(database) == project(between, SHARDS)


BROKEN_BODIES = {
    "not JSON": (b"nonsense", "not JSON"),
    "a list": (b"[]", "not as the contract says"),
    "nothing": (b"", "not JSON"),
    "a wrong type": (b'{"workflow":3}', "workflow"),
    "cut": (b'{"workflow":"w"', "not JSON"),
    "more than one": (b"{}{}", "not JSON"),
    "a number that is not one": (b'{"inputs":NaN}', "not JSON"),
    "not UTF-8": (b'{"inputs":"\xff"}', "not UTF-8"),
    "10,000 levels": (b'{"inputs":' + nested(10_000) + b"}", "nested too deeply"),
    "200,000 levels": (b'{"inputs":' + nested(200_000) + b"}", "nested too deeply"),
    "too much": (b'{"inputs":"' + b"x" * 2 * 1024 * 1024 + b'"}', "too large"),
}


def test_a_broken_body_in_a_packed_frame_is_a_dead_letter(
    fold_frames: FoldFrames, database: psycopg.Connection
) -> None:
    """Its neighbours in the frame fold: a body is judged by itself."""
    envelopes = []
    for number, (body, _) in enumerate(BROKEN_BODIES.values()):
        envelopes.append(to_envelope(started(f"run {number}")))
        envelopes.append(Envelope("started", "bad", number, NOON_US, body))

    letters = fold_frames([to_fields(envelopes, packed=True)])

    assert [letter[2] for letter in letters] == list(range(1, len(envelopes), 2))
    for (what, (_, reason)), letter in zip(BROKEN_BODIES.items(), letters, strict=True):
        assert reason in letter[3], what
    good = [started(f"run {number}") for number in range(len(BROKEN_BODIES))]
    assert read_projection(database) == project(good, SHARDS)


def test_white_space_in_a_packed_body_is_harmless(
    fold_frames: FoldFrames, database: psycopg.Connection
) -> None:
    """Another writer's JSON is laid out otherwise; the ledger's text stays JSON all the same."""
    bodies = [b"{ }", b' {"user": "ada"} ', b'\n{\n "tags" : {"a":"b"} }\n']
    envelopes = [Envelope("started", "r", n, NOON_US, body) for n, body in enumerate(bodies)]

    letters = fold_frames([to_fields(envelopes, packed=True)])

    assert letters == []
    expected = project(
        [started("r", 0), started("r", 1, user="ada"), started("r", 2, tags={"a": "b"})], SHARDS
    )
    assert read_projection(database) == expected


def test_a_string_without_an_end_is_a_dead_letter_in_no_time(fold_frames: FoldFrames) -> None:
    """Half a million escaped quotes are read once, not once from each of them."""
    quotes = b'"' + b'\\"' * 500_000

    letters = fold_frames(
        [{b"events": b"[" + quotes}, json_frame(with_inputs(b"[" * 129 + quotes))]
    )

    assert len(letters) == 2


def test_a_long_string_in_an_array_that_has_to_be_taken_apart(fold_frames: FoldFrames) -> None:
    """Memory is that of the frame, not a hundred times as much."""
    long = wire(inputs="x" * 32 * 1024 * 1024)

    letters = fold_frames([json_frame(long, b"NaN")])

    assert [letter[2] for letter in letters] == [0, 1]


def test_a_worker_that_restarts_after_all_that_has_nothing_left_to_say(
    fold_frames: FoldFrames, database: psycopg.Connection
) -> None:
    """Broken frames that come again, in a new frame, are dead letters of their own."""
    broken = json_frame(wire(type="sung"))

    assert len(fold_frames([broken])) == 1
    assert len(fold_frames([json_frame(written(BEFORE))])) == 1
    assert len(fold_frames([broken])) == 2
    assert read_projection(database) == project([BEFORE], SHARDS)
