"""The front door."""

import gc
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import fakeredis
import pytest
from msgspec import Raw

import runfold
from recorded_events import Recorded
from runfold import BrokenEvent, Completed, Error, Event, Heartbeat, Logged, Recorder, Started
from runfold.delivery import native_threads, process_hooks


def test_the_public_api_is_complete() -> None:
    """Everything that is exported exists, and is sorted."""
    assert sorted(runfold.__all__) == runfold.__all__
    for name in runfold.__all__:
        assert getattr(runfold, name) is not None


def test_importing_opens_no_socket_and_starts_no_thread() -> None:
    """An import, and even a recorder, costs nothing until there is something to record."""
    script = (
        "import socket, threading\n"
        "def refuse(*a, **k): raise AssertionError('a socket')\n"
        "socket.socket.connect = refuse\n"
        "from runfold import Recorder\n"
        "recorder = Recorder()\n"
        "assert threading.active_count() == 1\n"
        "assert recorder.flush(0).sent == 0\n"
        "recorder.close()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)


def test_an_event_is_emitted_as_it_is(recorder: Recorder, recorded: Recorded) -> None:
    """Its own run, id and time are kept."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    recorder.emit(Logged(run="r", id=17, at=at, text="x"))
    ((envelope, event),) = recorded()
    assert (envelope.run, envelope.id, envelope.at_us) == (
        "r",
        17,
        int(at.timestamp()) * 1_000_000,
    )
    assert event == Logged(text="x")


def test_missing_ids_and_times_are_filled_in(recorder: Recorder, recorded: Recorded) -> None:
    """Events of one run count on, from an emitter that is not 0."""
    recorder.emit(Started(run="r", workflow="w"))
    recorder.emit(Heartbeat(run="r"))
    recorder.emit(Completed(run="r"))
    first, second, third = (envelope.id for envelope, _ in recorded())
    assert (second, third) == (first + 1, first + 2)
    assert first >> 32 != 0


def test_an_event_without_a_run_belongs_to_the_current_one(
    recorder: Recorder, recorded: Recorded
) -> None:
    """Its number follows those of the run's handle."""
    with recorder.run("w") as run:
        recorder.emit(Logged(text="x"))
        recorder.emit(Logged(run=run.id, text="y"))
    assert [envelope.id for envelope, _ in recorded()] == [0, 1, 2, 3]
    assert {envelope.run for envelope, _ in recorded()} == {run.id}


def test_an_event_without_any_run_is_refused(recorder: Recorder) -> None:
    """The message names this mistake in the program."""
    with pytest.raises(BrokenEvent, match="no `run` is given"):
        recorder.emit(Heartbeat())


@pytest.mark.parametrize("junk", ["text", None, {"type": "started"}, Error()])
def test_what_is_no_event_is_refused(recorder: Recorder, junk: Any) -> None:
    """Only the contract's events can be emitted."""
    with pytest.raises(BrokenEvent, match="not an event of the contract"):
        recorder.emit(junk)


def test_emitted_payloads_are_redacted(recorder: Recorder, recorded: Recorded) -> None:
    """Raw JSON, and objects where the contract wants raw JSON."""
    recorder.emit(Started(run="r", inputs=Raw(b'{"password":"x"}')))
    value = {"password": "x", "rows": [1]}
    recorder.emit(Completed(run="r", outputs=value))  # type: ignore[arg-type]
    value["rows"] = []
    assert [json.loads(envelope.body) for envelope, _ in recorded()] == [
        {"inputs": {"password": "[redacted]"}},
        {"outputs": {"password": "[redacted]", "rows": [1]}},
    ]


def test_an_emitted_event_inside_an_unsaved_run_is_not_recorded(
    recorder: Recorder, recorded: Recorded
) -> None:
    """Whether it names that run or not."""
    with recorder.run("w", save=False) as run:
        recorder.emit(Logged(text="x"))
        recorder.emit(Logged(run=run.id, text="x"))
        recorder.join(run.id).log("x")
    assert recorded() == []


def test_a_broken_event_is_dropped_alone_and_reported(
    recorder: Recorder, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """An event that no reader accepts reaches neither Redis nor stops the following ones."""
    recorder.emit(Logged(run="r", text="a"))
    recorder.emit(Logged(run="r", id=-1, text="b"))
    recorder.emit(Logged(run="r", text="c"))
    assert [event.text for _, event in recorded()] == ["a", "c"]  # type: ignore[attr-defined]
    assert recorder.flush().dropped == 1
    recorder.close()
    assert "id -1" in caplog.text


def test_payload_prepares_an_object_for_emit(recorder: Recorder) -> None:
    """Redacted and encoded as for a run."""
    assert bytes(recorder.payload({"token": "x", "n": 1})) == b'{"token":"[redacted]","n":1}'


def test_flush_reports_what_is_safe(recorder: Recorder) -> None:
    """Counts of what is in the stream, what waits, and what was dropped."""
    with recorder.run("w"):
        pass
    assert recorder.flush(10) == runfold.Flushed(sent=2, pending=0, dropped=0)
    assert recorder.close(10) == runfold.Flushed(sent=2, pending=0, dropped=0)


def test_a_closed_recorder_drops_and_counts(
    recorder: Recorder, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """The runner goes on; its events are dropped, and that is logged."""
    recorder.close()
    with recorder.run("w") as run:
        run.log("x")
    assert recorder.flush(0) == runfold.Flushed(sent=0, pending=0, dropped=3)
    assert "dropped" in caplog.text
    recorder.close()


def test_a_recorder_can_be_a_block(fake_server: fakeredis.FakeServer) -> None:
    """Leaving it flushes and stops."""
    client = fakeredis.FakeRedis(server=fake_server)
    with Recorder(connect=lambda _: client) as recorder:
        with recorder.run("w"):
            pass
        thread = recorder._emitter._thread
        assert thread is not None
    assert recorder.flush(0).sent == 2
    assert not thread.is_alive()


def test_a_forgotten_recorder_sends_and_ends_its_thread(
    fake_server: fakeredis.FakeServer,
) -> None:
    """A recorder that goes out of scope loses nothing and leaves no thread behind."""

    def work() -> native_threads.Thread:
        recorder = Recorder(connect=lambda _: fakeredis.FakeRedis(server=fake_server))
        with recorder.run("w"):
            pass
        thread = recorder._emitter._thread
        assert thread is not None
        return thread

    thread = work()
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    client = fakeredis.FakeRedis(server=fake_server)
    assert sum(client.xlen(key) for key in client.keys("runfold:*:events")) >= 1


def test_no_argument_breaks_the_runner(
    recorder: Recorder, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """Every argument may be of an unexpected type."""

    class Hostile:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

        def __str__(self) -> str:
            raise RuntimeError("str")

        __repr__ = __str__

    junk: Any = Hostile()
    with recorder.run(
        junk,
        project=junk,
        id=junk,
        inputs=junk,
        trigger=junk,
        user=junk,
        session=junk,
        tags=junk,
        metadata=junk,
        parent_run=junk,
        attempt=junk,
        nodes=[junk],
        queued_at=junk,
    ) as run:
        run.outputs = junk
        run.exit_code = None
        run.log(junk, level=junk, stream=junk, node=junk)
        run.annotate(tags={junk: junk}, metadata=junk)
        run.usage(input_tokens=junk, output_tokens=junk, cost_usd=junk)
        with run.node(
            junk, name=junk, node_type=junk, attempt=junk, parents=[junk], inputs=junk
        ) as node:
            node.outputs = {junk: junk}
            node.usage(input_tokens=junk)
            node.log(junk)
            node.fail(junk)
        run.fail(junk)
    recorder.record(junk, started_at=junk, nodes=[{"node": junk}], error=junk, stdout=junk)
    assert len(recorded()) > 8
    assert recorder.flush().dropped == 0
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_the_default_project_is_a_setting(
    fake_server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used for every run that names none."""
    monkeypatch.setenv("RUNFOLD_PROJECT", "acme")
    client = fakeredis.FakeRedis(server=fake_server)
    seen: list[Event] = []
    with Recorder(connect=lambda _: client) as recorder:
        monkeypatch.setattr(recorder._emitter, "put", lambda item: seen.append(item[0]))
        recorder.run("w").start()
        recorder.run("w", project="other").start()
    assert [event.project for event in seen if isinstance(event, Started)] == ["acme", "other"]


def test_only_the_outermost_run_of_a_forked_child_is_flushed(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In nested order one flush; joined and finished runs have theirs, others and parents none."""
    flushes: list[float] = []
    monkeypatch.setattr(recorder._emitter, "flush_or_spool", flushes.append)

    def flushed() -> int:
        count = len(flushes)
        flushes.clear()
        return count

    def nest() -> None:
        with recorder.run("outer") as outer, outer.node("n"), recorder.run("inner"):
            recorder.record("finished", started_at=datetime.now(UTC), duration_ms=1)

    nest()
    assert flushed() == 0
    recorder._emitter.ends_abruptly = True
    nest()
    assert flushed() == 1
    with pytest.raises(ValueError, match="x"), recorder.run("fails"):
        raise ValueError("x")
    assert flushed() == 1
    with recorder.join("elsewhere") as joined, joined.node("n"):
        pass
    assert flushed() == 1
    with recorder.run("not saved", save=False), recorder.run("saved"):
        pass
    assert flushed() == 1
    recorder.run("by hand").start().complete()
    assert flushed() == 1
    recorder.record("finished", started_at=datetime.now(UTC), duration_ms=1)
    assert flushed() == 1
    with recorder.run("parent's") as inherited:
        monkeypatch.setattr(process_hooks, "generation", process_hooks.generation + 1)
        with recorder.run("child's"):
            pass
        assert flushed() == 1
        with inherited.node("n"):
            pass
        assert flushed() == 1


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime.now(UTC) + timedelta(hours=25),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_a_wrong_clock_is_refused_where_the_caller_can_see_it(
    recorder: Recorder, recorded: Recorded, moment: datetime
) -> None:
    """`record` raises and names the field; `emit` and `queued_at` count a broken event."""
    now = datetime.now(UTC)
    for field in ("started_at", "finished_at", "queued_at"):
        times: dict[str, Any] = {"started_at": now} | {field: moment}
        with pytest.raises(BrokenEvent, match=rf"^{field}: .* is out of bounds"):
            recorder.record("w", **times)
    with pytest.raises(BrokenEvent, match=r"^nodes\[0\]\.started_at: "):
        recorder.record("w", started_at=now, nodes=[{"node": "n", "started_at": moment}])
    recorder.emit(Started(run="emitted", workflow="w", at=moment))
    recorder.emit(Logged(run="emitted", text="fine", at=now))
    with recorder.run("w", id="begun", queued_at=moment):
        pass
    assert recorder.flush().dropped == 2
    kinds = [(envelope.run, envelope.type) for envelope, _ in recorded()]
    assert sorted(kinds) == [("begun", "completed"), ("begun", "started"), ("emitted", "logged")]


@pytest.mark.parametrize(
    "moment", [datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=23)]
)
def test_the_bounds_of_time_are_within_them(
    recorder: Recorder, recorded: Recorded, moment: datetime
) -> None:
    """As an import of old traces needs it."""
    recorder.record("w", started_at=moment)
    recorder.emit(Started(run="emitted", workflow="w", at=moment))
    with recorder.run("w", queued_at=moment):
        pass
    assert recorder.flush().dropped == 0
    assert len(recorded()) == 6
