"""What the doctor makes of streams and positions."""

from runfold_stack.doctor import Finding
from runfold_stack.doctor.redis_checks import LAG_FRAMES, check_lags, check_shards
from runfold_storage.checkpoints.streams import Lag

MAX_LAG_S = 10


def levels(findings: list[Finding]) -> list[tuple[str, str]]:
    """What was checked, and how it is."""
    return [(finding.check, finding.level) for finding in findings]


def test_a_stream_that_is_folded_is_well() -> None:
    """Nothing waits."""
    assert levels(list(check_lags({0: Lag(0, 0.0, 0, False)}, MAX_LAG_S))) == [("lag", "ok")]


def test_a_long_lag_is_a_warning() -> None:
    """With the shard where most of it is, and for how long."""
    lags = {0: Lag(7, 1.0, 0, False), 1: Lag(LAG_FRAMES, 61.25, 0, False)}
    (found,) = check_lags(lags, 62)
    assert found.level == "warn"
    assert found.found.startswith("10,007 frames wait to be folded, most of them on shard 1")
    assert "the oldest for 61.2 s" in found.found


def test_events_that_wait_for_too_long_are_a_failure() -> None:
    """However few they are; with the shard on which the oldest is."""
    lags = {0: Lag(7, 1.0, 0, False), 1: Lag(1, 10.5, 0, False)}
    (found,) = check_lags(lags, MAX_LAG_S)
    assert (found.check, found.level) == ("lag", "fail")
    assert found.found == "8 frames wait to be folded, the oldest for 10.5 s, on shard 1"


def test_frames_that_were_lost_are_counted() -> None:
    """Those of all shards."""
    (lost, _) = check_lags({0: Lag(2, 1.0, 8, False), 3: Lag(0, 0.0, 4, False)}, MAX_LAG_S)
    assert lost.level == "fail"
    assert lost.found == "shard 0, 3: 12 frames were trimmed or deleted unread"


def test_a_stream_that_was_replaced_is_a_failure() -> None:
    """Its shards are named."""
    (replaced, _) = check_lags({0: Lag(0, 0.0, 0, True), 1: Lag(0, 0.0, 0, True)}, MAX_LAG_S)
    assert replaced.level == "fail"
    assert replaced.found.startswith("shard 0, 1:")


def test_shards_have_to_agree() -> None:
    """Redis, the database and the setting mean the same number, or one is named."""
    assert check_shards(8, None, 8).level == "ok"
    assert check_shards(8, 8, 0).level == "ok"
    assert check_shards(8, 4, 8).level == "fail"
    assert check_shards(8, None, 4).level == "fail"
    assert check_shards(None, None, 8).level == "fail"
    assert check_shards(None, None, 0).level == "warn"
