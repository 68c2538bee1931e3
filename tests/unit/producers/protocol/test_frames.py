"""Frames: what one stream entry holds."""

import contextlib
import json
import re
import struct
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from runfold import BrokenFrame, Completed, Heartbeat, Logged, Started
from runfold.protocol.codec import (
    MAX_US,
    MIN_US,
    TYPE_NUMBERS,
    Envelope,
    encode_event,
    make_envelope,
)
from runfold.protocol.events import MAX_EVENT_BYTES, Event
from runfold.protocol.frames import (
    MAX_FRAME_BYTES,
    decode_frame,
    encode_json_frame,
    encode_packed_frame,
)

COMPRESSOR = zstandard.ZstdCompressor()
EVENTS: list[Event] = [
    Started(workflow="w", inputs=Raw(b'{"a": 1.0}')),
    Logged(text="ünïcode \U0001f600"),
    Heartbeat(),
    Completed(exit_code=0),
]
ENVELOPES = [
    make_envelope(event, run=f"r{n % 2}", id=n, at_us=10**15 + n) for n, event in enumerate(EVENTS)
]


def packed(data: bytes, head: bytes = b"RF\x01") -> dict[bytes, bytes]:
    return {b"packed": head + COMPRESSOR.compress(data)}


def columns(
    *,
    runs: tuple[bytes, ...] = (b"r",),
    run_numbers: tuple[int, ...] = (0,),
    types: tuple[int, ...] = (TYPE_NUMBERS["heartbeat"],),
    ids: tuple[int, ...] = (1,),
    times: tuple[int, ...] = (0,),
    bodies: tuple[bytes, ...] = (b"{}",),
) -> bytes:
    """A packed frame by hand, as `producers/PROTOCOL.md` describes it."""
    n = len(ids)
    return b"".join(
        [
            struct.pack("<HH", n, len(runs)),
            struct.pack(f"<{len(runs)}H", *map(len, runs)),
            *runs,
            struct.pack(f"<{len(run_numbers)}H", *run_numbers),
            bytes(types),
            struct.pack(f"<{n}Q", *ids),
            struct.pack(f"<{len(times)}q", *times),
            struct.pack(f"<{len(bodies)}I", *map(len, bodies)),
            *bodies,
        ]
    )


@pytest.mark.parametrize(
    "fields",
    [encode_json_frame(ENVELOPES), encode_packed_frame(ENVELOPES, COMPRESSOR)],
    ids=["events", "packed"],
)
def test_both_forms_hold_the_same_events(fields: dict[bytes, bytes]) -> None:
    """What goes into a frame comes out of it, in order."""
    frame = decode_frame(fields)
    assert frame.broken == []
    assert [envelope for envelope, _ in frame.events] == ENVELOPES
    assert [event for _, event in frame.events] == EVENTS


runs_of_events = st.lists(
    st.builds(
        make_envelope,
        st.one_of(
            st.builds(Logged, text=st.text()),
            st.builds(Heartbeat),
            st.builds(
                Completed,
                outputs=st.dictionaries(st.text(), st.integers(-(2**60), 2**60)).map(
                    lambda value: Raw(json.dumps(value).encode())
                ),
            ),
        ),
        run=st.text(min_size=1, max_size=200).filter(
            lambda run: "\0" not in run and "\ufffd" not in run
        ),
        id=st.integers(0, 2**63 - 1),
        at_us=st.integers(MIN_US, MAX_US),
    ),
    min_size=1,
    max_size=20,
)


@given(runs_of_events)
def test_any_events_survive_packing(envelopes: list[Envelope]) -> None:
    """A packed frame loses and changes nothing."""
    frame = decode_frame(encode_packed_frame(envelopes, COMPRESSOR))
    assert [envelope for envelope, _ in frame.events] == envelopes


@given(runs_of_events)
def test_any_events_survive_json(envelopes: list[Envelope]) -> None:
    """A readable frame loses and changes nothing."""
    frame = decode_frame(encode_json_frame(envelopes))
    assert [envelope for envelope, _ in frame.events] == envelopes


def test_the_packed_layout_is_the_documented_one() -> None:
    """A frame packed by hand from PROTOCOL.md equals ours, byte for byte."""
    by_hand = columns(
        runs=(b"r0", b"r1"),
        run_numbers=(0, 1, 0, 1),
        types=tuple(TYPE_NUMBERS[envelope.type] for envelope in ENVELOPES),
        ids=(0, 1, 2, 3),
        times=tuple(envelope.at_us for envelope in ENVELOPES),
        bodies=tuple(envelope.body for envelope in ENVELOPES),
    )
    ours = encode_packed_frame(ENVELOPES, COMPRESSOR)[b"packed"]
    assert ours[:3] == b"RF\x01"
    assert zstandard.ZstdDecompressor().decompress(ours[3:]) == by_hand


def test_the_documented_example_is_a_frame() -> None:
    """The bytes that PROTOCOL.md shows are what the same two events are packed into."""
    text = (Path(__file__).parents[4] / "producers" / "PROTOCOL.md").read_text()
    lines = re.findall(r"^    ((?:[0-9a-f]{2} {1,2})+) *\S", text, re.MULTILINE)
    shown = bytes.fromhex("".join(lines))
    at_us = 1_795_226_400_000_000
    envelopes = [
        make_envelope(Started(workflow="w"), run="my-run", id=0, at_us=at_us),
        make_envelope(Completed(exit_code=0), run="my-run", id=1, at_us=at_us + 1_500_000),
    ]
    ours = encode_packed_frame(envelopes, COMPRESSOR)[b"packed"]
    assert zstandard.ZstdDecompressor().decompress(ours[3:]) == shown
    assert [envelope for envelope, _ in decode_frame(packed(shown)).events] == envelopes


def test_unknown_fields_survive_packing() -> None:
    """A body of a newer producer is stored whole."""
    frame = decode_frame(packed(columns(bodies=(b'{"mood":"fine"}',))))
    assert frame.events[0][0].body == b'{"mood":"fine"}'


@pytest.mark.parametrize(
    "bad",
    [
        b'{"type":"nonsense","run":"r","at":"2026-11-21T02:00:00Z"}',
        b"17",
        b"1e999",
        b'"\\ud800"',
        b"nul",
        b'{"a":}',
        b'{"type":"logged","run":"r","at":"2026-11-21T02:00:00Z","text":"\xff"}',
        b"[" * 5000 + b"]" * 5000,
    ],
)
def test_a_broken_event_spares_its_neighbours(bad: bytes) -> None:
    """One bad item of an array is a dead letter with its bytes; the others go through."""
    good = encode_event(ENVELOPES[0])
    frame = decode_frame({b"events": b"[" + good + b"," + bad + b"," + good + b"]"})
    assert [envelope for envelope, _ in frame.events] == [ENVELOPES[0]] * 2
    (broken,) = frame.broken
    assert broken.raw in (bad, b'"\\ufffd"')


def test_a_broken_body_spares_its_neighbours_when_packed() -> None:
    """An invalid body in a packed frame is returned as JSON, for inspection."""
    data = columns(
        run_numbers=(0, 0, 0),
        types=(TYPE_NUMBERS["logged"],) * 3,
        ids=(1, 2, 3),
        times=(0, 0, 0),
        bodies=(b'{"text":"a"}', b'{"text":5}', b'{"text":"c"}'),
    )
    frame = decode_frame(packed(data))
    assert [event for _, event in frame.events] == [Logged(text="a"), Logged(text="c")]
    assert json.loads(frame.broken[0].raw)["id"] == 2


def test_an_oversized_body_is_broken_when_packed() -> None:
    """The limit of an event holds in both forms."""
    body = b'{"text":"' + b"x" * MAX_EVENT_BYTES + b'"}'
    frame = decode_frame(packed(columns(types=(TYPE_NUMBERS["logged"],), bodies=(body,))))
    assert frame.events == []
    assert "too large" in str(frame.broken[0])


def test_u0000_in_a_packed_body_is_replaced() -> None:
    """A foreign writer's U+0000 cannot reach PostgreSQL."""
    data = columns(types=(TYPE_NUMBERS["logged"],), bodies=(b'{"text":"a\\u0000b"}',))
    assert decode_frame(packed(data)).events[0][1] == Logged(text="a\ufffdb")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "no field"),
        ({b"data": b"{}"}, "only 'data'"),
        ({b"\xff": b"{}"}, "no field"),
        ({b"events": b""}, "not a JSON array"),
        ({b"events": b"{}"}, "not a JSON array"),
        ({b"events": b"[]"}, "an empty array"),
        ({b"events": b" [ ] "}, "an empty array"),
        ({b"packed": b""}, "does not start with 'RF'"),
        ({b"packed": b"XX\x01abc"}, "does not start with 'RF'"),
        ({b"packed": b"RF\x02abc"}, "newer version"),
        ({b"packed": b"RF\x01"}, "packed:"),
        ({b"packed": b"RF\x01garbage"}, "packed:"),
        (packed(b""), "packed:"),
        (packed(columns()[:-1]), "packed:"),
        (packed(columns() + b"x"), "do not fill"),
        (packed(struct.pack("<HH", 0, 0)), "at least one event"),
        (packed(columns(run_numbers=(1,))), "run numbers"),
        (packed(columns(types=(200,))), "known types"),
        (packed(columns(ids=(2**63,))), "event ids"),
        (packed(columns(runs=(b"",))), "run ids of 1 to 200"),
        (packed(columns(runs=(b"x" * 201,))), "run ids of 1 to 200"),
        (packed(columns(runs=(b"a\0b",))), r"without U\+0000"),
        (packed(columns(runs=(b"\xff",))), "packed:"),
    ],
)
def test_an_unreadable_frame_has_a_reason(fields: dict[bytes, bytes], expected: str) -> None:
    """A whole entry is rejected only if its events cannot be separated."""
    with pytest.raises(BrokenFrame, match=expected):
        decode_frame(fields)


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    """The size that a frame claims is bounded, and is what it gets."""
    with pytest.raises(BrokenFrame, match="uncompressed"):
        decode_frame(packed(b"\0" * (MAX_FRAME_BYTES + 1)))


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    """Random entries are frames or broken frames, nothing else."""
    for fields in ({b"events": b"[" + raw}, {b"packed": b"RF\x01" + raw}, packed(raw)):
        with contextlib.suppress(BrokenFrame):
            decode_frame(fields)


@pytest.mark.parametrize("field", ['"run":"other"', '"id":7', '"at":"2026-11-21T00:00:00Z"'])
def test_a_packed_body_has_no_envelope_of_its_own(field: str) -> None:
    """Otherwise the ledger would get two answers about the run of an event."""
    envelope = Envelope("logged", "r", 1, 0, b'{"text":"x",' + field.encode() + b"}")
    [broken] = decode_frame(encode_packed_frame([envelope], COMPRESSOR)).broken
    assert "further fields alone" in str(broken)
