"""Frames taken apart: what goes on to the fold, and what becomes a dead letter."""

from runfold.codec import Envelope
from runfold.frames import encode_json_frame
from runfold.streams import shard_of
from runfold_workers.arrivals import Place, StreamEntry, leave_out, take_apart, wrong_streams

SHARDS = 4
RUN = "nightly"
HOME = shard_of(RUN, SHARDS)


def entry(shard: int, *ids: int) -> StreamEntry:
    """A frame with a log line of the run for each id."""
    lines = [Envelope("logged", RUN, n, 1_795_000_000_000_000 + n, b'{"text":"x"}') for n in ids]
    return StreamEntry(shard, "7-0", encode_json_frame(lines))


def test_an_event_in_the_wrong_stream_is_a_dead_letter() -> None:
    """It says where the run belongs, for folded here the run would be in two places."""
    elsewhere = (HOME + 1) % SHARDS
    [arrival], _ = take_apart([entry(elsewhere, 0)])
    left, [letter] = leave_out(arrival, wrong_streams(arrival, [0], SHARDS))
    assert (left.columns.ids, left.facts, left.places) == ((), (), [])
    assert letter[:3] == (elsewhere, "7-0", 0)
    assert letter.reason == f"wrong stream: run 'nightly' belongs to shard {HOME} of {SHARDS}"
    assert b'"run":"nightly"' in letter.raw


def test_refused_events_are_left_out_with_the_reason() -> None:
    """Their neighbours in the frame go on."""
    refused = {Place(HOME, "7-0", 1): "refused by PostgreSQL: too odd"}
    arrivals, dead_letters = take_apart([entry(HOME, 10, 11, 12)], refused)
    assert arrivals[0].columns.ids == (10, 12)
    assert [place.ordinal for place in arrivals[0].places] == [0, 2]
    assert [(letter.ordinal, letter.reason) for letter in dead_letters] == [
        (1, "refused by PostgreSQL: too odd")
    ]


def test_a_frame_that_cannot_be_read_is_one_dead_letter() -> None:
    """With all of its bytes."""
    arrivals, dead_letters = take_apart([StreamEntry(0, "7-0", {b"events": b"hello"})])
    assert arrivals == []
    assert [(letter.ordinal, letter.raw) for letter in dead_letters] == [(0, b"hello")]
    assert "not a JSON array" in dead_letters[0].reason
