"""Signs of life for all open runs."""

import gc

import pytest

from recorded_events import Recorded
from runfold import Recorder
from runfold.delivery import process_hooks
from runfold.recording.run import Heartbeats


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_no_run_no_timer(clock: Clock) -> None:
    """With nothing open the flusher can sleep as long as it likes."""
    assert Heartbeats(60, clock.monotonic).send_due(True) is None


def test_every_open_run_gives_a_sign_of_life(
    clock: Clock, recorder: Recorder, recorded: Recorded
) -> None:
    """One timer serves all; it starts with the first run and repeats."""
    beats = Heartbeats(60, clock.monotonic)
    runs = [recorder.run("w") for _ in range(2)]
    for run in runs:
        beats.add(run)
    assert beats.send_due(True) == 60
    clock.now += 59
    assert beats.send_due(True) == 1
    assert recorded() == []
    clock.now += 1
    assert beats.send_due(True) == 60
    assert {envelope.run for envelope, _ in recorded()} == {run.id for run in runs}
    beats.remove(runs[0])
    clock.now += 60
    beats.send_due(True)
    assert [envelope.run for envelope, _ in recorded()].count(runs[0].id) == 1
    beats.remove(runs[1])
    assert beats.send_due(True) is None


def test_none_is_sent_while_redis_is_away(
    clock: Clock, recorder: Recorder, recorded: Recorded
) -> None:
    """Outdated heartbeats would take the room of events."""
    beats = Heartbeats(60, clock.monotonic)
    run = recorder.run("w")
    beats.add(run)
    beats.send_due(False)
    clock.now += 61
    assert beats.send_due(False) == 60
    assert recorded() == []


def test_an_abandoned_handle_gives_none(clock: Clock, recorder: Recorder) -> None:
    """The timer holds no reference to a run."""
    beats = Heartbeats(60, clock.monotonic)
    beats.add(recorder.run("w"))
    gc.collect()
    beats.send_due(True)
    clock.now += 61
    beats.send_due(True)
    assert beats.send_due(True) is None


def test_a_forked_child_gives_none_for_its_parents_runs(
    clock: Clock, recorder: Recorder, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children must not hide the death of their parent."""
    beats = Heartbeats(60, clock.monotonic)
    run = recorder.run("w")
    beats.add(run)
    beats.send_due(True)
    monkeypatch.setattr(process_hooks, "generation", process_hooks.generation + 1)
    clock.now += 61
    beats.send_due(True)
    assert recorded() == []


def test_0_seconds_sends_none(clock: Clock, recorder: Recorder) -> None:
    """Heartbeats can be switched off."""
    beats = Heartbeats(0, clock.monotonic)
    run = recorder.run("w")
    beats.add(run)
    assert beats.send_due(True) is None
