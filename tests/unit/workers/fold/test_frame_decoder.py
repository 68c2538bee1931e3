"""Frames taken apart: what goes on to the fold, and what becomes a dead letter."""

import zstandard

from runfold.protocol.codec import Envelope
from runfold.protocol.frames import encode_json_frame, encode_packed_frame
from runfold.protocol.streams import shard_of
from runfold.serialization.redaction import Redactor
from runfold_workers.fold.frame_decoder import (
    EventLocation,
    StreamEntry,
    decode_frames,
    exclude,
    misrouted_events,
)

SHARDS = 4
RUN = "nightly"
HOME = shard_of(RUN, SHARDS)
REDACTOR = Redactor()


def entry(shard: int, *ids: int) -> StreamEntry:
    """A frame with a log line of the run for each id."""
    lines = [Envelope("logged", RUN, n, 1_795_000_000_000_000 + n, b'{"text":"x"}') for n in ids]
    return StreamEntry(shard, "7-0", encode_json_frame(lines))


def test_an_event_in_the_wrong_stream_is_a_dead_letter() -> None:
    """It says where the run belongs, for folded here the run would be in two places."""
    elsewhere = (HOME + 1) % SHARDS
    [arrival], _ = decode_frames([entry(elsewhere, 0)], redactor=REDACTOR)
    left, [letter] = exclude(arrival, misrouted_events(arrival, [0], SHARDS))
    assert (left.columns.ids, left.facts, left.locations) == ((), (), [])
    assert letter[:3] == (elsewhere, "7-0", 0)
    assert letter.reason == f"wrong stream: run 'nightly' belongs to shard {HOME} of {SHARDS}"
    assert b'"run":"nightly"' in letter.raw


def test_refused_events_are_left_out_with_the_reason() -> None:
    """Their neighbours in the frame go on."""
    refused = {EventLocation(HOME, "7-0", 1): "refused by PostgreSQL: too odd"}
    arrivals, dead_letters = decode_frames([entry(HOME, 10, 11, 12)], refused, redactor=REDACTOR)
    assert arrivals[0].columns.ids == (10, 12)
    assert [place.ordinal for place in arrivals[0].locations] == [0, 2]
    assert [(letter.ordinal, letter.reason) for letter in dead_letters] == [
        (1, "refused by PostgreSQL: too odd")
    ]


def test_a_frame_that_cannot_be_read_is_one_dead_letter() -> None:
    """With all of its bytes."""
    arrivals, dead_letters = decode_frames(
        [StreamEntry(0, "7-0", {b"events": b"hello"})], redactor=REDACTOR
    )
    assert arrivals == []
    assert [(letter.ordinal, letter.raw) for letter in dead_letters] == [(0, b"hello")]
    assert "not a JSON array" in dead_letters[0].reason


def packed(frame: str, *lines: tuple[str, int, bytes]) -> StreamEntry:
    """A packed frame with a log line for each (run, id, body)."""
    envelopes = [Envelope("logged", run, n, 1_795_000_000_000_000 + n, b) for run, n, b in lines]
    compressor = zstandard.ZstdCompressor()
    return StreamEntry(0, frame, encode_packed_frame(envelopes, compressor))


def test_small_packed_frames_are_read_as_one() -> None:
    """Each event keeps its run, its body and the place where it stood."""
    frames = [
        packed("1-0", ("a", 0, b'{"text":"1"}'), ("b", 0, b'{"text":"2"}')),
        packed("2-0", ("b", 1, b'{"text":"3"}')),
        packed("3-0", ("c", 0, b'{"text":"4"}'), ("a", 1, b'{"text":"5"}')),
    ]
    (arrival,), dead_letters = decode_frames(frames, redactor=REDACTOR)
    columns = arrival.columns
    assert [columns.runs[number] for number in columns.run_numbers] == ["a", "b", "b", "c", "a"]
    assert columns.bodies == tuple(b'{"text":"%d"}' % n for n in range(1, 6))
    assert columns.ids == (0, 0, 1, 0, 1)
    assert [place[1:] for place in arrival.locations] == [
        *(("1-0", 0), ("1-0", 1), ("2-0", 0), ("3-0", 0), ("3-0", 1))
    ]
    assert dead_letters == []


def test_a_broken_body_in_a_small_frame_does_not_touch_the_others() -> None:
    """It becomes a dead letter with its own place, and so does a frame that cannot be read."""
    frames = [
        packed("1-0", ("a", 0, b'{"text":"1"}')),
        packed("2-0", ("a", 1, b'{"text":'), ("a", 2, b'{"text":"3"}')),
        StreamEntry(0, "3-0", {b"packed": b"hello"}),
        packed("4-0", ("a", 3, b'{"text":"4"}')),
    ]
    arrivals, dead_letters = decode_frames(frames, redactor=REDACTOR)
    ids = [event_id for arrival in arrivals for event_id in arrival.columns.ids]
    assert ids == [0, 2, 3]
    assert [letter[1:3] for letter in dead_letters] == [("3-0", 0), ("2-0", 0)]
