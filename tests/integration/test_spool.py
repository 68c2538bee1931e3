"""The spool against a real Redis: outages, shared folders, full disks."""

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from conditions import wait_until
from runfold import Heartbeat, Logged, Recorder
from runfold.protocol.codec import Envelope
from runfold.protocol.frames import decode_frame
from runfold_stack.servers.redis_server import RedisServer

MakeRedis = Callable[..., RedisServer]


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that every recorder of the test spools to."""
    monkeypatch.setenv("RUNFOLD_SPOOL_DIR", str(tmp_path / "spool"))
    return tmp_path / "spool"


@pytest.fixture
def server(make_redis: MakeRedis) -> RedisServer:
    return make_redis()


def read(url: str) -> Iterator[Envelope]:
    """Every event in the streams, in the order of its stream."""
    with redis.Redis.from_url(url) as client:
        for key in sorted(client.keys("runfold:*:events")):
            for _, fields in client.xrange(key):
                frame = decode_frame(fields)
                assert frame.broken == []
                yield from (envelope for envelope, _ in frame.events)


def first_seen(url: str, run: str) -> list[int]:
    """The ids of a run's events in the order in which each came first."""
    return list(dict.fromkeys(envelope.id for envelope in read(url) if envelope.run == run))


def files(spool: Path) -> list[str]:
    return sorted(os.listdir(spool)) if spool.exists() else []


def drain(url: str, spool: Path) -> None:
    """A later process sends what is left."""
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", "0")
    with Recorder(url, heartbeat_s=0) as recorder:
        recorder.emit(Heartbeat(run="drain"))
        wait_until(lambda: not files(spool), what=f"an empty {spool}")
        recorder.flush(30)


def check(url: str, name: str, safe: int) -> None:
    """Events reported as safe are there, in order within their run, repeated only in whole."""
    found: dict[int, Envelope] = {}
    for envelope in read(url):
        if envelope.run.startswith(f"{name}-"):
            assert found.setdefault(envelope.id, envelope) == envelope
    assert set(found) >= set(range(safe))
    for number in range(10):
        order = first_seen(url, f"{name}-{number}")
        assert order == sorted(order)


def test_away_from_the_start_then_a_later_process(make_redis: MakeRedis, spool: Path) -> None:
    """A program that never saw Redis leaves its events to the next one, in the right streams."""
    server = make_redis()
    server.stop()
    with Recorder(server.url) as recorder:
        for number in range(100):
            recorder.emit(Logged(run=f"away-{number % 10}", id=number, text="x"))
        flushed = recorder.flush(60)
        assert (flushed.sent, flushed.pending, flushed.spooled) == (0, 0, 100)
    assert len(files(spool)) == 1
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("runfold:shards", 3)  # the later process has to sort them again
    drain(server.url, spool)
    check(server.url, "away", 100)
    with redis.Redis.from_url(server.url) as client:
        assert len(client.keys("runfold:*:events")) == 3


def test_an_outage_is_over_before_the_process_is(make_redis: MakeRedis, spool: Path) -> None:
    """Redis dies and comes back: what was spooled goes first, then what came after it."""
    # By default one that is killed may forget what it has confirmed within the last second.
    server = make_redis(extra_args=("--appendfsync", "always"))
    with Recorder(server.url, heartbeat_s=0) as recorder:
        for begin in range(0, 300, 100):
            if begin == 100:
                server.kill()
            if begin == 200:
                server.start()
            for number in range(begin, begin + 100):
                recorder.emit(Logged(run=f"outage-{number % 10}", id=number, text="x"))
            flushed = recorder.flush(60)
            assert (flushed.pending, flushed.dropped) == (0, 0)
        assert (flushed.sent, flushed.spooled) == (300, 0)
    assert files(spool) == []
    check(server.url, "outage", 300)


def test_a_read_only_redis_is_spooled_for(server: RedisServer, spool: Path) -> None:
    """A demoted primary refuses everything; its events are safe on disk within a second or so."""
    with Recorder(server.url) as recorder, redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", "1")
        recorder.emit(Logged(run="read-only-0", id=0, text="x"))
        flushed = recorder.flush(60)
        assert (flushed.sent, flushed.spooled, flushed.pending) == (0, 1, 0)
        client.replicaof("NO", "ONE")
        assert recorder.flush(60).sent == 1
    check(server.url, "read-only", 1)


def test_two_processes_share_a_folder(server: RedisServer, spool: Path) -> None:
    """One that lives keeps its segments to itself, though another one looks for orphans."""
    with redis.Redis.from_url(server.url) as client:
        client.set("ballast", bytes(4 * 1024 * 1024))
        client.config_set("maxmemory", "2mb")
        with Recorder(server.url) as first, Recorder(server.url) as second:
            for number in range(20):
                first.emit(Logged(run=f"first-{number % 10}", id=number, text="x"))
                second.emit(Logged(run=f"second-{number % 10}", id=number, text="x"))
            assert [one.flush(60).spooled for one in (first, second)] == [20, 20]
            assert len(files(spool)) == 2
            client.config_set("maxmemory", "0")
            assert [one.flush(60).sent for one in (first, second)] == [20, 20]
    assert files(spool) == []
    assert len(list(read(server.url))) == 40


def test_events_for_another_redis_stay_where_they_are(make_redis: MakeRedis, spool: Path) -> None:
    """A spool is shared by programs that record to different servers."""
    away, there = make_redis(), make_redis()
    away.stop()
    with Recorder(away.url) as recorder:
        recorder.emit(Logged(run="other-0", id=0, text="x"))
        assert recorder.flush(60).spooled == 1
    [left] = files(spool)
    with Recorder(there.url) as recorder:
        recorder.emit(Heartbeat(run="r"))
        recorder.flush(30)
    assert files(spool) == [left]
    assert [envelope.run for envelope in read(there.url)] == ["r"]


def test_a_corrupt_segment_is_set_aside(
    make_redis: MakeRedis, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its readable part is sent, and the file is set aside and named in the log."""
    server = make_redis()
    server.stop()
    with Recorder(server.url, shards=1) as recorder:
        for number in range(3):
            recorder.emit(Logged(run="corrupt-0", id=number, text="x"))
            assert recorder.flush(60).spooled == number + 1
    [name] = files(spool)
    content = bytearray((spool / name).read_bytes())
    second = content.find(b"RFR1", content.find(b"RFR1") + 1)
    content[second + 30] ^= 0xFF
    (spool / name).write_bytes(content)
    server.start()
    with Recorder(server.url) as recorder:
        recorder.emit(Heartbeat(run="r"))
        wait_until(lambda: files(spool) == [f"{name}.corrupt"], what="a segment set aside")
    assert first_seen(server.url, "corrupt-0") == [0, 2]
    assert "1 records cannot be read" in caplog.text


def test_a_foreign_file_is_set_aside_unsent(server: RedisServer, spool: Path) -> None:
    """Its Redis is unknown, so nothing of it is sent."""
    spool.mkdir()
    (spool / "0-0-0.spool").write_bytes(b"something else entirely" * 10)
    with Recorder(server.url) as recorder:
        recorder.emit(Heartbeat(run="r"))
        wait_until(lambda: files(spool) == ["0-0-0.spool.corrupt"], what="a file set aside")
        recorder.flush(30)
    assert [envelope.run for envelope in read(server.url)] == ["r"]


def test_only_its_owner_may_look_into_the_spool(make_redis: MakeRedis, spool: Path) -> None:
    """It contains payloads in plain text."""
    server = make_redis()
    server.stop()
    with Recorder(server.url) as recorder:
        recorder.emit(Logged(run="r", text="x"))
        recorder.flush(60)
        assert stat.S_IMODE(spool.stat().st_mode) == 0o700
        [name] = files(spool)
        assert stat.S_IMODE((spool / name).stat().st_mode) == 0o600


def test_a_full_spool_drops_the_newest_and_counts_them(
    make_redis: MakeRedis, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At its cap the spool accepts no more, memory fills, and the rest is dropped and counted."""
    server = make_redis()
    server.stop()
    texts = [os.urandom(50_000).hex() for _ in range(40)]
    with Recorder(server.url, spool_bytes=1024 * 1024, buffer_events=10, heartbeat_s=0) as recorder:
        for number, text in enumerate(texts):
            recorder.emit(Logged(run="full-0", id=number, text=text))
            recorder.flush(0.05)
        flushed = recorder.flush(2)
        assert flushed.spooled > 5
        assert flushed.pending == 10
        assert flushed.spooled + flushed.pending + flushed.dropped == 40
        assert sum((spool / name).stat().st_size for name in files(spool)) <= 1024 * 1024
        server.start()
        sent = flushed.spooled + flushed.pending
        assert recorder.flush(60).sent == sent
    assert first_seen(server.url, "full-0") == list(range(sent))
    assert "RUNFOLD_SPOOL_BYTES" in caplog.text


def test_a_full_disk_breaks_nothing(make_redis: MakeRedis, spool: Path) -> None:
    """A write that fails halfway leaves the segment as it was, and the events in memory."""
    server = make_redis()
    server.stop()
    texts = [os.urandom(10_000).hex() for _ in range(20)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Recorder(server.url, heartbeat_s=0) as recorder:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        try:
            for number, text in enumerate(texts):
                recorder.emit(Logged(run="disk-0", id=number, text=text))
                recorder.flush(0.05)
            flushed = recorder.flush(2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert flushed.spooled >= 2
        assert flushed.spooled + flushed.pending == 20
        assert flushed.pending > 0
        server.start()
        assert recorder.flush(60).sent == 20
    assert first_seen(server.url, "disk-0") == list(range(20))


def test_a_folder_that_cannot_be_made_breaks_nothing(
    make_redis: MakeRedis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Events wait in memory as they would without a spool, and the log says why."""
    server = make_redis()
    server.stop()
    (tmp_path / "file").touch()
    with Recorder(server.url, spool_dir=str(tmp_path / "file" / "spool")) as recorder:
        recorder.emit(Logged(run="r", text="x"))
        assert recorder.flush(2).pending == 1
        server.start()
        assert recorder.flush(60).sent == 1
    assert "events wait in memory, as the spool failed" in caplog.text


def test_a_forked_child_leaves_its_parents_spool_alone(make_redis: MakeRedis, spool: Path) -> None:
    """The parent's lock ends with the parent, though a child of it lives on."""
    server = make_redis()
    server.stop()
    script = (
        "import os, sys, time\n"
        "from runfold import Logged; from runfold import Recorder\n"
        "recorder = Recorder(heartbeat_s=0)\n"
        "recorder.emit(Logged(run='parent-0', id=0, text='x'))\n"
        "assert recorder.flush(60).spooled == 1\n"
        "if os.fork() == 0:\n"
        "    os.close(1)\n"
        "    recorder.emit(Logged(run='child-0', id=0, text='x'))\n"
        "    assert recorder.flush(60).spooled == 1\n"
        "    sys.stdin.read()\n"
        "os._exit(0)\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script],
        env=os.environ | {"RUNFOLD_REDIS_URL": server.url},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert program.wait(60) == 0
    wait_until(lambda: len(files(spool)) == 2, what="the child's own segment")
    server.start()
    with Recorder(server.url, heartbeat_s=0) as recorder:
        recorder.emit(Heartbeat(run="r"))
        wait_until(
            lambda: "parent-0" in {envelope.run for envelope in read(server.url)},
            what="the parent's event, while the child lives",  # and may have sent its own by now
        )
    assert program.stdin is not None
    program.stdin.close()
    drain(server.url, spool)
    check(server.url, "parent", 1)
    check(server.url, "child", 1)
