"""Frames are sent to their streams, in order, until they are acknowledged."""

import random
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest
import redis

from runfold import Heartbeat
from runfold.delivery.frame_packer import FramePacker
from runfold.delivery.native_threads import OwnedLock
from runfold.delivery.stream_sender import Backoff, StreamSender
from runfold.protocol.frames import decode_frame
from runfold.protocol.streams import shard_of, stream_key
from runfold.serialization.redaction import Redactor
from runfold.spool.segment import PendingFrame


class Flaky(fakeredis.FakeRedis):
    """A Redis whose pipelines give the answers that a test sets."""

    answer: Callable[[list[Any]], list[Any]] | None = None

    def pipeline(self, transaction: bool = True, shard_hint: object = None) -> Any:
        pipeline: Any = super().pipeline(transaction, shard_hint)
        if self.answer is not None:
            real, answer = pipeline.execute, self.answer
            pipeline.execute = lambda raise_on_error=True: answer(real(raise_on_error))
        return pipeline


packer = FramePacker(Redactor())


def make(connect: Callable[[], redis.Redis], shards: int | None) -> StreamSender:
    """A sender without a spool, whose lock the test holds."""
    lock = OwnedLock()
    lock.acquire()

    def reshard(frame: PendingFrame, shards: int) -> list[PendingFrame]:
        return packer.reshard(frame, frame.packed, shards)

    return StreamSender(connect, shards, reshard, lambda _: None, lock)


def frame(*numbers: int, run: str = "r", shards: int = 4) -> PendingFrame:
    """A frame with events of one run."""
    items = [(Heartbeat(), run, number, 0, 10, True) for number in numbers]
    [packed], _ = packer.pack(items, shards)
    return packed


def send(sender: StreamSender, *, now: bool = False) -> tuple[int, int]:
    """How many events and bytes were acknowledged."""
    settled = sender.send(now=now)
    assert all(one.settled for one in settled)
    return sum(one.count for one in settled), sum(one.size for one in settled)


@pytest.fixture
def client(fake_server: fakeredis.FakeServer) -> Flaky:
    return Flaky(server=fake_server)


@pytest.fixture
def sender(client: Flaky) -> StreamSender:
    sender = make(lambda: client, 4)
    assert sender.connect()
    return sender


def stream(client: redis.Redis, run: str = "r", shards: int = 4) -> list[list[int]]:
    """The event ids in the frames of a run's stream."""
    entries: Any = client.xrange(stream_key(shard_of(run, shards)))
    return [[one.id for one, _ in decode_frame(fields).events] for _, fields in entries]


def test_events_go_to_the_stream_of_their_run(client: Flaky, sender: StreamSender) -> None:
    """Each shard gets one frame with its events, in order."""
    sender.add([frame(0, 2, 4, 6, run="run0"), frame(1, 3, 5, 7, run="run1")])
    assert send(sender) == (8, 80)
    assert stream(client, "run0") == [[0, 2, 4, 6]]
    assert stream(client, "run1") == [[1, 3, 5, 7]]


def test_one_frame_of_a_shard_is_on_its_way(client: Flaky, sender: StreamSender) -> None:
    """A newer frame waits for the answer to the older one."""
    sender.add([frame(0), frame(1)])
    assert send(sender) == (1, 10)
    assert stream(client) == [[0]]
    assert send(sender) == (1, 10)
    assert stream(client) == [[0], [1]]


def test_a_refused_shard_keeps_its_events_in_order(client: Flaky, sender: StreamSender) -> None:
    """What Redis refused is sent again, before anything newer of that shard."""
    sender.add([frame(0)])
    client.answer = lambda _: [redis.ResponseError("OOM command not allowed")]
    assert send(sender) == (0, 0)
    sender.add([frame(1)])
    assert send(sender) == (0, 0), "too soon after a refusal"
    client.answer = None
    assert [send(sender, now=True), send(sender)] == [(1, 10), (1, 10)]
    assert stream(client)[-2:] == [[0], [1]]


def test_one_refused_shard_does_not_stop_the_others(client: Flaky, sender: StreamSender) -> None:
    """A stream that is broken by hand leaves the other ones running."""
    client.set(stream_key(shard_of("bad", 4)), "not a stream")
    sender.add([frame(0, run="bad")])
    sender.add([frame(1, run="r")])
    assert shard_of("bad", 4) != shard_of("r", 4)
    assert send(sender) == (1, 10)
    assert stream(client) == [[1]]
    assert sender.is_connected
    assert (sender.next_attempt_s() or 0) > 0


def test_a_lost_reply_leads_to_a_repetition_with_the_same_ids(
    client: Flaky, sender: StreamSender
) -> None:
    """The events were stored without a reply: they are sent again, unchanged."""

    def lose(_: list[Any]) -> list[Any]:
        raise redis.ConnectionError("reset by peer")

    sender.add([frame(0)])
    client.answer = lose
    assert send(sender) == (0, 0)
    assert not sender.is_connected
    client.answer = None
    assert sender.connect(now=True)
    assert send(sender) == (1, 10)
    assert stream(client) == [[0], [0]]


def test_a_read_only_answer_leads_to_a_new_connection(client: Flaky, sender: StreamSender) -> None:
    """The connection to a demoted primary is closed; the next one may reach the new primary."""
    sender.add([frame(0)])
    client.answer = lambda _: [redis.ReadOnlyError("READONLY")]
    assert send(sender) == (0, 0)
    assert not sender.is_connected
    client.answer = None
    assert sender.connect(now=True)
    assert send(sender, now=True) == (1, 10)


def test_a_failed_connection_is_not_tried_again_at_once() -> None:
    """While Redis is away there is a backoff, which `now` skips."""
    attempts = []

    def connect() -> redis.Redis:
        attempts.append(1)
        raise OSError("away")

    sender = make(connect, None)
    assert not sender.connect()
    assert not sender.connect()
    assert len(attempts) == 1
    assert not sender.connect(now=True)
    assert len(attempts) == 2
    assert (sender.next_attempt_s() or 0) > 0


def test_a_setting_that_differs_is_reported_and_waits(
    client: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    """With the wrong number of shards nothing is sent to the wrong stream."""
    client.set("runfold:shards", 8)
    assert not make(lambda: client, 4).connect()
    assert "RUNFOLD_SHARDS=8" in caplog.text


def test_failures_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """An outage does not flood the log."""

    def connect() -> redis.Redis:
        raise OSError("away")

    sender = make(connect, None)
    for _ in range(10):
        sender.connect(now=True)
    assert len(caplog.records) == 1


def test_a_flushed_redis_gets_the_number_again(client: Flaky) -> None:
    """What was agreed before a Redis lost its data is what holds afterwards."""
    client.set("runfold:shards", 2)
    sender = make(lambda: client, None)
    assert sender.connect()
    client.flushall()
    sender.close()
    assert sender.connect()
    assert client.get("runfold:shards") == b"2"


def test_another_number_sorts_the_waiting_events_again(client: Flaky) -> None:
    """A new deployment with more shards gets the events in the streams that it reads."""
    client.set("runfold:shards", 1)
    sender = make(lambda: client, None)
    assert sender.connect()
    items = [(Heartbeat(), f"run{number}", number, 0, 1, True) for number in range(20)]
    sender.add(packer.pack(items, 1)[0])
    client.set("runfold:shards", 16)
    sender.close()
    assert sender.connect()
    assert send(sender) == (20, 20)
    for number in range(20):
        ids = [id_ for frame in stream(client, f"run{number}", 16) for id_ in frame]
        assert number in ids


def test_pauses_grow_up_to_a_limit() -> None:
    """A long outage is probed every few seconds, and a success resets the delay."""
    backoff = Backoff()
    for _ in range(100):
        backoff.record_failure()
    assert 2 <= backoff.remaining_s() <= 5
    backoff.reset()
    assert backoff.remaining_s() == 0
    backoff.record_failure()
    assert backoff.remaining_s() <= 0.05


def test_the_random_numbers_of_the_program_stay_its_own() -> None:
    """A program that seeds `random` gets the same numbers, whether Redis is away or not."""
    random.seed(7)
    before = random.getstate()
    Backoff().record_failure()
    assert random.getstate() == before
