"""What the doctor makes of streams and positions."""

from runfold_stack.diagnosis.findings import Finding
from runfold_stack.diagnosis.stream_checks import LAG_FRAMES, Stream, check_shards, check_streams
from runfold_storage.positions import Position


def levels(findings: list[Finding]) -> list[tuple[str, str]]:
    """What was checked, and how it is."""
    return [(finding.check, finding.level) for finding in findings]


def test_a_stream_that_is_folded_is_well() -> None:
    """Everything that was added has been consumed."""
    streams = {0: Stream(True, length=0, added=10, last="5-0")}
    found = list(check_streams(streams, {0: Position("5-0", 0, 10, 3)}))
    assert levels(found) == [("lag", "ok")]


def test_a_long_lag_is_a_warning() -> None:
    """The lag is what was added and not consumed."""
    streams = {0: Stream(True, length=LAG_FRAMES + 1, added=LAG_FRAMES + 11, last="9-0")}
    found = list(check_streams(streams, {0: Position("5-0", 0, 10, 3)}))
    assert levels(found) == [("lag", "warn")]


def test_frames_that_were_trimmed_unread_are_counted() -> None:
    """More has left the stream than was consumed."""
    streams = {0: Stream(True, length=2, added=20, last="9-0")}
    (trimmed, _) = check_streams(streams, {0: Position("5-0", 0, 10, 3)})
    assert trimmed.level == "fail"
    assert "8 frames were trimmed unread" in trimmed.found


def test_a_stream_behind_its_position_was_replaced() -> None:
    """Ids compare as numbers, and a missing stream ends at 0-0."""
    positions = {0: Position("10-0", 0, 10, 3), 1: Position("10-0", 0, 10, 3)}
    streams = {0: Stream(True, length=1, added=1, last="9-9"), 1: Stream(False)}
    (behind, _) = check_streams(streams, positions)
    assert behind.level == "fail"
    assert behind.found.startswith("shard 0, 1:")


def test_shards_have_to_agree() -> None:
    """Redis, the database and the setting mean the same number, or one is named."""
    assert check_shards(8, None, 8).level == "ok"
    assert check_shards(8, 8, 0).level == "ok"
    assert check_shards(8, 4, 8).level == "fail"
    assert check_shards(8, None, 4).level == "fail"
    assert check_shards(None, None, 8).level == "fail"
    assert check_shards(None, None, 0).level == "warn"
