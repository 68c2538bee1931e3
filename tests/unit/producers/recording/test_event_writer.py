"""The writer of one run's events."""

from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest

from runfold import Heartbeat, Logged, Usage
from runfold.protocol.codec import MAX_US, MIN_US
from runfold.recording.event_writer import (
    EventIds,
    EventWriter,
    UsageSum,
    log_events,
    normalize_time,
    normalize_usage,
    read_usage,
)
from runfold.serialization.redaction import Redactor


def make_pen(*, saved: bool = True) -> tuple[EventWriter, Mock]:
    emitter = Mock(spec=["put"])
    return EventWriter("r", EventIds(0), emitter, Redactor(), saved=saved), emitter


def test_times_do_not_step_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the machine's clock is set back, the events of a run stay in their order."""
    writer, emitter = make_pen()
    clock = iter([2_000_000, 1_000_000, 3_000_000])
    monkeypatch.setattr("runfold.recording.event_writer.time.time_ns", lambda: next(clock))
    for _ in range(3):
        writer.write(Heartbeat())
    assert [call.args[0][3] for call in emitter.put.call_args_list] == [2000, 2000, 3000]
    assert [call.args[0][2] for call in emitter.put.call_args_list] == [0, 1, 2]


def test_an_unsaved_pen_writes_nothing() -> None:
    """`save=False` costs no event and reads no object."""
    writer, emitter = make_pen(saved=False)
    writer.write(Heartbeat())
    writer.log("x", None, "log", None)
    unread = Mock()
    assert len(writer.payload(unread)) == 0
    assert not emitter.put.called
    assert unread.mock_calls == []


def test_long_logs_become_several_events() -> None:
    """A text of any length is recorded whole."""
    text = "".join(chr(ord("a") + n % 26) for n in range(300_000))
    events = log_events(text, None, "stdout", "n", Redactor())
    assert len(events) == 3
    assert "".join(event.text for event in events) == text
    assert {(event.stream, event.node) for event in events} == {("stdout", "n")}


def test_an_empty_log_is_no_event() -> None:
    """There is nothing to record."""
    assert log_events("", None, "log", None, Redactor()) == []


def test_an_unknown_stream_is_the_log() -> None:
    """An invalid level or stream is dropped, the text is kept."""
    assert log_events("x", "info", "stdin", None, Redactor()) == [Logged(text="x", level="info")]


def test_usage_adds_up() -> None:
    """What was not given stays unknown, instead of 0."""
    total = UsageSum()
    assert total.total is None
    total.add(Usage(input_tokens=1, cost_usd=0.5))
    total.add(None)
    total.add(Usage(input_tokens=2))
    assert total.total == Usage(input_tokens=3, cost_usd=0.5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None, None), None),
        ((1, 2, 0.5), Usage(1, 2, 0.5)),
        ((-5, 10**15, 1e9), Usage(0, 10**12, 1e6)),
        (("3", 2.7, "x"), Usage(3, 2, None)),
        ((float("nan"), None, None), None),
        (([], {}, object()), None),
    ],
)
def test_usage_is_made_to_fit(given: tuple[Any, ...], expected: Usage | None) -> None:
    """A provider's strange numbers do not break the event that carries them."""
    assert normalize_usage(*given) == expected


def test_usage_may_be_a_mapping() -> None:
    """Fields that are not usage are left out."""
    assert read_usage({"input_tokens": 1, "model": "x"}) == Usage(input_tokens=1)
    assert read_usage(Usage(output_tokens=1)) == Usage(output_tokens=1)
    assert read_usage(None) is None


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (None, None),
        (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 1_000_000),
        (datetime.min.replace(tzinfo=UTC), MIN_US),
        (datetime.max.replace(tzinfo=UTC), MAX_US),
        ("yesterday", None),
        (5, None),
    ],
)
def test_times_are_made_to_fit(at: Any, expected: int | None) -> None:
    """What is no time is left out."""
    assert normalize_time(at) == expected
