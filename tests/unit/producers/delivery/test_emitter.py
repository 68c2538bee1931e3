"""The emitter's behaviour that needs no real server."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis

from runfold import Flushed, Heartbeat, Logged, Settings
from runfold.delivery import native_threads
from runfold.delivery.emitter import Emitter
from runfold.protocol.frames import decode_frame
from runfold.serialization.event_cleanup import BufferedEvent
from runfold.serialization.redaction import Redactor
from runfold.settings import read_settings
from runfold.spool.segment import PendingFrame
from stream_frames import read_frames


def item(number: int, run: str = "r", size: int = 10) -> BufferedEvent:
    return (Logged(text=str(number)), run, number, number, size, True)


def away() -> redis.Redis:
    raise OSError("away")


def make(connect: Callable[[], redis.Redis], **settings: Any) -> Emitter:
    return Emitter(read_settings({}, **settings), Redactor(), connect)


def ids(server: fakeredis.FakeServer) -> list[int]:
    client = fakeredis.FakeRedis(server=server)
    return [
        envelope.id
        for key in client.keys("runfold:*:events")
        for _, fields in read_frames(client, key)
        for envelope, _ in decode_frame(fields).events
    ]


def test_events_arrive_in_order(fake_server: fakeredis.FakeServer) -> None:
    """What one thread put is in the stream in its order."""
    emitter = make(lambda: fakeredis.FakeRedis(server=fake_server))
    for number in range(10_000):
        emitter.put(item(number))
    assert emitter.flush(30) == Flushed(sent=10_000, pending=0, dropped=0)
    assert ids(fake_server) == list(range(10_000))
    emitter.close(5)


def test_a_full_buffer_drops_the_newest_and_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    """With Redis away nothing is slowed; what does not fit is counted and reported."""
    emitter = make(away, buffer_events=3, backpressure="block")
    emitter._buffer.may_wait = False
    for number in range(5):
        emitter.put(item(number))
    assert emitter.flush(0.05) == Flushed(sent=0, pending=3, dropped=2)
    assert emitter.close(0) == Flushed(sent=0, pending=3, dropped=2)
    assert "2 events dropped" in caplog.text


def test_events_that_waited_are_sent_when_redis_comes(
    fake_server: fakeredis.FakeServer,
) -> None:
    """An outage at the start costs nothing but time."""
    is_there = threading.Event()

    def connect() -> redis.Redis:
        if not is_there.is_set():
            raise OSError("away")
        return fakeredis.FakeRedis(server=fake_server)

    emitter = make(connect)
    for number in range(5):
        emitter.put(item(number))
    waiting = emitter.flush(0)
    assert waiting.pending + waiting.spooled == 5
    is_there.set()
    assert emitter.flush(30) == Flushed(sent=5, pending=0, dropped=0)
    assert ids(fake_server) == [0, 1, 2, 3, 4]
    emitter.close(5)


def test_flushing_in_vain_leaves_nothing_behind(fake_server: fakeredis.FakeServer) -> None:
    """Time-outs of `flush` neither count as events nor hold up a later one."""
    is_there = threading.Event()

    def connect() -> redis.Redis:
        if not is_there.is_set():
            raise OSError("away")
        return fakeredis.FakeRedis(server=fake_server)

    emitter = make(connect)
    emitter.put(item(0))
    for _ in range(20):
        waiting = emitter.flush(0)
        assert waiting.pending + waiting.spooled == 1
    is_there.set()
    assert emitter.flush(30) == Flushed(sent=1, pending=0, dropped=0)
    emitter.close(5)


@pytest.mark.slow
def test_flush_does_not_wait_for_what_comes_later(fake_server: fakeredis.FakeServer) -> None:
    """A runner that emits without pause cannot prevent `flush` from returning."""
    emitter = make(lambda: fakeredis.FakeRedis(server=fake_server))
    stop = threading.Event()

    def emit() -> None:
        number = 0
        while not stop.is_set():
            if emitter.flushed.pending < 5000:
                emitter.put(item(number, run="busy"))
                number += 1

    emitting = threading.Thread(target=emit)
    emitting.start()
    try:
        for number in range(3):
            emitter.put(item(number, run="mine"))
            emitter.flush(30)
            client = fakeredis.FakeRedis(server=fake_server)
            mine = [
                envelope.id
                for key in client.keys("runfold:*:events")
                for _, fields in read_frames(client, key)
                for envelope, _ in decode_frame(fields).events
                if envelope.run == "mine"
            ]
            assert mine == list(range(number + 1))
    finally:
        stop.set()
        emitting.join()
        emitter.close(5)


def test_flushing_nothing_needs_no_thread() -> None:
    """An unused emitter has no thread, and flushes at once."""
    emitter = make(away)
    before = threading.active_count()
    assert emitter.flush(60) == Flushed(sent=0, pending=0, dropped=0)
    assert threading.active_count() == before


def test_an_error_in_the_flusher_does_not_end_it(
    fake_server: fakeredis.FakeServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug is reported, and the events go out afterwards."""
    emitter = make(lambda: fakeredis.FakeRedis(server=fake_server))
    sender = emitter._dispatcher.sender
    send, failures = sender.send, iter([True])

    def fail_once(**arguments: bool) -> list[PendingFrame]:
        if next(failures, False):
            raise RuntimeError("a bug")
        return send(**arguments)

    monkeypatch.setattr(sender, "send", fail_once)
    emitter.put(item(0))
    assert emitter.flush(30) == Flushed(sent=1, pending=0, dropped=0)
    assert "a bug" in caplog.text
    emitter.close(5)


def test_where_no_thread_can_start_the_caller_sends(
    fake_server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the very end of an interpreter, `flush` does the work itself."""

    def refuse(self: native_threads.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(native_threads.Thread, "start", refuse)
    emitter = make(lambda: fakeredis.FakeRedis(server=fake_server))
    emitter.put(item(0))
    emitter.put(item(1))
    assert emitter.flush(30) == Flushed(sent=2, pending=0, dropped=0)
    assert ids(fake_server) == [0, 1]


def test_an_event_after_the_end_of_the_process_is_sent_at_once(
    fake_server: fakeredis.FakeServer,
) -> None:
    """Exit handlers that run after ours may still record."""
    emitter = make(lambda: fakeredis.FakeRedis(server=fake_server))
    emitter.put(item(0))
    emitter.at_exit()
    assert ids(fake_server) == [0]
    emitter.put(item(1))
    assert ids(fake_server) == [0, 1]
    emitter.close(5)


def test_the_end_of_a_process_waits_only_so_long(caplog: pytest.LogCaptureFixture) -> None:
    """With Redis away the time of all calls together is bounded, and the loss is logged."""
    emitter = make(away, exit_flush_s=0.1, backpressure="block")
    emitter.put(item(0))
    emitter.at_exit()
    emitter.put(item(1))
    assert "2 events could not be sent" in caplog.text
    assert emitter._exit_budget_s == 0
    emitter.close(0)


def test_the_end_of_a_process_loses_nothing(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """What cannot be sent is in the spool, and that is logged."""
    emitter = make(away, exit_flush_s=0, spool_dir=str(tmp_path / "spool"))
    emitter.put(item(0))
    emitter.at_exit()
    emitter.put(item(1))
    assert emitter.flushed == Flushed(sent=0, pending=0, dropped=0, spooled=2)
    assert "2 events are in the spool" in caplog.text
    assert len(list((tmp_path / "spool").iterdir())) == 1
    emitter.close(0)


def test_a_hanging_connection_does_not_keep_events_from_the_spool(tmp_path: Path) -> None:
    """`close` spools them itself while the flusher hangs."""
    hangs, let_go = threading.Event(), threading.Event()

    def connect() -> redis.Redis:
        hangs.set()
        let_go.wait(60)
        raise OSError("away")

    emitter = make(connect, spool_dir=str(tmp_path / "spool"))
    emitter.put(item(0))
    assert hangs.wait(30)
    assert emitter.close(0.1) == Flushed(sent=0, pending=0, dropped=0, spooled=1)
    let_go.set()


def test_an_outage_moves_events_to_the_spool_and_back(
    fake_server: fakeredis.FakeServer, tmp_path: Path
) -> None:
    """Both happen without a call, and in order."""
    is_there = threading.Event()

    def connect() -> redis.Redis:
        if not is_there.is_set():
            raise OSError("away")
        return fakeredis.FakeRedis(server=fake_server)

    emitter = make(connect, spool_dir=str(tmp_path / "spool"), shards=3)
    for number in range(50):
        emitter.put(item(number))
    assert emitter.flush(30) == Flushed(sent=0, pending=0, dropped=0, spooled=50)
    for number in range(50, 100):
        emitter.put(item(number))
    is_there.set()
    assert emitter.flush(30) == Flushed(sent=100, pending=0, dropped=0, spooled=0)
    assert ids(fake_server) == list(range(100))
    assert list((tmp_path / "spool").iterdir()) == []
    emitter.close(5)


def test_a_runner_may_wait_for_room(fake_server: fakeredis.FakeServer) -> None:
    """With `block` nothing is dropped, whatever the pace."""
    emitter = make(
        lambda: fakeredis.FakeRedis(server=fake_server), buffer_events=10, backpressure="block"
    )
    for number in range(1000):
        emitter.put(item(number))
    assert emitter.flush(30) == Flushed(sent=1000, pending=0, dropped=0)
    assert ids(fake_server) == list(range(1000))
    emitter.close(5)


def test_the_oldest_may_be_dropped(fake_server: fakeredis.FakeServer) -> None:
    """With `drop_oldest` the last events before Redis came back are those that are sent."""
    is_there = threading.Event()

    def connect() -> redis.Redis:
        if not is_there.is_set():
            raise OSError("away")
        return fakeredis.FakeRedis(server=fake_server)

    emitter = make(connect, buffer_events=10, backpressure="drop_oldest")
    for number in range(100):
        emitter.put(item(number))
    assert emitter.flushed == Flushed(sent=0, pending=10, dropped=90)
    is_there.set()
    assert emitter.flush(30) == Flushed(sent=10, pending=0, dropped=90)
    assert ids(fake_server) == list(range(90, 100))
    emitter.close(5)


def test_a_forked_child_starts_empty(fake_server: fakeredis.FakeServer) -> None:
    """The parent sends what the parent has; the child gets a thread and a client of its own."""
    connecting, let_go = threading.Event(), threading.Event()

    def hang() -> redis.Redis:
        connecting.set()
        let_go.wait(60)
        return away()

    emitter = make(hang, backpressure="block")
    emitter.put(item(0))
    thread = emitter._thread
    assert thread is not None
    assert connecting.wait(30)  # in a child there is no such thread, so here it must do nothing
    emitter._connect = lambda: fakeredis.FakeRedis(server=fake_server)
    emitter.after_fork()
    emitter.put(item(1))
    assert emitter.flush(30) == Flushed(sent=1, pending=0, dropped=0)
    assert ids(fake_server) == [1]
    assert emitter._thread is not thread
    emitter.close(5)
    let_go.set()
    thread.join(30)


def test_heartbeats_come_from_the_flusher(fake_server: fakeredis.FakeServer) -> None:
    """What is due is emitted by the flusher's own thread, and sent."""
    seen = []
    done = threading.Event()

    def beat(is_connected: bool) -> float | None:
        seen.append(threading.current_thread().name)
        if len(seen) == 3:
            emitter.put((Heartbeat(), "r", 1, 0, 10, True))
            done.set()
        return 0.01

    emitter = Emitter(Settings(), Redactor(), lambda: fakeredis.FakeRedis(server=fake_server), beat)
    emitter.put(item(0))
    assert done.wait(30)
    assert emitter.flush(30).sent == 2
    assert set(seen) == {"runfold"}
    emitter.close(5)


def failing_fsync(descriptor: int) -> None:
    raise OSError(errno.EIO, "input/output error")


def test_what_the_disk_does_not_confirm_is_not_called_spooled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A loss of power could still take it, until a later flush has it confirmed."""
    emitter = make(away, spool_dir=str(tmp_path))
    emitter.put(item(0))
    assert emitter.flush(5).spooled == 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_fsync)
        emitter.put(item(1))
        flushed = emitter.flush(0.1)
        assert (flushed.pending, flushed.spooled) == (1, 1)
        assert len(os.listdir(tmp_path)) == 1
    flushed = emitter.flush(5)
    assert (flushed.pending, flushed.spooled) == (0, 2)
    emitter.close(1)


def test_what_is_sorted_again_is_on_disk_before_its_old_record_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The number of shards differs from the one assumed when these events were spooled."""
    emitter = make(away, spool_dir=str(tmp_path))
    for number in range(20):
        emitter.put(item(number, run=f"run {number}"))
    assert emitter.flush(5).spooled == 20
    [before] = os.listdir(tmp_path)
    dispatcher = emitter._dispatcher
    monkeypatch.setattr(os, "fsync", failing_fsync)
    dispatcher._lock.acquire()
    frame = dispatcher.sender.queued_frames()[0]
    assert dispatcher._reshard(frame, 2)
    dispatcher._delete_rewritten()
    assert [frame.settled] == [False]
    assert before in os.listdir(tmp_path)
    monkeypatch.undo()
    dispatcher._delete_rewritten()
    assert [frame.settled] == [True]
    dispatcher._lock.release()
    emitter.close(0.1)
