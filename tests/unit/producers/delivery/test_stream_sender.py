"""From envelopes to frames in their streams."""

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
from runfold.spool.pending_frame import PendingFrame


class Flaky(fakeredis.FakeRedis):
    """A Redis whose pipelines answer what a test wants."""

    answer: Callable[[list[Any]], list[Any]] | None = None

    def pipeline(self, transaction: bool = True, shard_hint: object = None) -> Any:
        pipeline: Any = super().pipeline(transaction, shard_hint)
        if self.answer is not None:
            real, answer = pipeline.execute, self.answer
            pipeline.execute = lambda raise_on_error=True: answer(real(raise_on_error))
        return pipeline


packer = FramePacker(Redactor())


def make(connect: Callable[[], redis.Redis], shards: int | None) -> StreamSender:
    """A shipper without a spool, whose desk the test sits at."""
    desk = OwnedLock()
    desk.acquire()

    def split(parcel: PendingFrame, shards: int) -> list[PendingFrame]:
        return packer.split(parcel, parcel.frame, shards)

    return StreamSender(connect, shards, split, lambda _: None, desk)


def parcel(*numbers: int, run: str = "r", shards: int = 4) -> PendingFrame:
    """A frame with events of one run."""
    items = [(Heartbeat(), run, number, 0, 10, True) for number in numbers]
    [packed], _ = packer.pack(items, shards)
    return packed


def send(shipper: StreamSender, *, now: bool = False) -> tuple[int, int]:
    """How many events and bytes were acknowledged."""
    settled = shipper.send(now=now)
    assert all(one.settled for one in settled)
    return sum(one.count for one in settled), sum(one.size for one in settled)


@pytest.fixture
def client(fake_server: fakeredis.FakeServer) -> Flaky:
    return Flaky(server=fake_server)


@pytest.fixture
def shipper(client: Flaky) -> StreamSender:
    shipper = make(lambda: client, 4)
    assert shipper.prepare()
    return shipper


def stream(client: redis.Redis, run: str = "r", shards: int = 4) -> list[list[int]]:
    """The event ids in the frames of a run's stream."""
    entries: Any = client.xrange(stream_key(shard_of(run, shards)))
    return [[one.id for one, _ in decode_frame(fields).events] for _, fields in entries]


def test_events_go_to_the_stream_of_their_run(client: Flaky, shipper: StreamSender) -> None:
    """Each shard gets one frame with its events, in order."""
    shipper.add([parcel(0, 2, 4, 6, run="run0"), parcel(1, 3, 5, 7, run="run1")])
    assert send(shipper) == (8, 80)
    assert stream(client, "run0") == [[0, 2, 4, 6]]
    assert stream(client, "run1") == [[1, 3, 5, 7]]


def test_one_frame_of_a_shard_is_on_its_way(client: Flaky, shipper: StreamSender) -> None:
    """A newer frame waits for the answer to the older one."""
    shipper.add([parcel(0), parcel(1)])
    assert send(shipper) == (1, 10)
    assert stream(client) == [[0]]
    assert send(shipper) == (1, 10)
    assert stream(client) == [[0], [1]]


def test_a_refused_shard_keeps_its_events_in_order(client: Flaky, shipper: StreamSender) -> None:
    """What Redis refused is sent again, before anything newer of that shard."""
    shipper.add([parcel(0)])
    client.answer = lambda _: [redis.ResponseError("OOM command not allowed")]
    assert send(shipper) == (0, 0)
    shipper.add([parcel(1)])
    assert send(shipper) == (0, 0), "too soon after a refusal"
    client.answer = None
    assert [send(shipper, now=True), send(shipper)] == [(1, 10), (1, 10)]
    assert stream(client)[-2:] == [[0], [1]]


def test_one_refused_shard_does_not_stop_the_others(client: Flaky, shipper: StreamSender) -> None:
    """A stream that is broken by hand leaves the other ones running."""
    client.set(stream_key(shard_of("bad", 4)), "not a stream")
    shipper.add([parcel(0, run="bad")])
    shipper.add([parcel(1, run="r")])
    assert shard_of("bad", 4) != shard_of("r", 4)
    assert send(shipper) == (1, 10)
    assert stream(client) == [[1]]
    assert not shipper.failing
    assert (shipper.left_s() or 0) > 0


def test_a_lost_reply_leads_to_a_repetition_with_the_same_ids(
    client: Flaky, shipper: StreamSender
) -> None:
    """The events were stored, but nobody knows: they go out again, unchanged."""

    def lose(_: list[Any]) -> list[Any]:
        raise redis.ConnectionError("reset by peer")

    shipper.add([parcel(0)])
    client.answer = lose
    assert send(shipper) == (0, 0)
    assert shipper.failing
    client.answer = None
    assert shipper.prepare(now=True)
    assert send(shipper) == (1, 10)
    assert stream(client) == [[0], [0]]


def test_a_read_only_answer_leads_to_a_new_connection(client: Flaky, shipper: StreamSender) -> None:
    """A primary that was demoted is left; the next connection may find the new one."""
    shipper.add([parcel(0)])
    client.answer = lambda _: [redis.ReadOnlyError("READONLY")]
    assert send(shipper) == (0, 0)
    assert shipper.failing
    client.answer = None
    assert shipper.prepare(now=True)
    assert send(shipper, now=True) == (1, 10)


def test_a_failed_connection_is_not_tried_again_at_once() -> None:
    """While Redis is away there is a pause, which an impatient caller can skip."""
    attempts = []

    def connect() -> redis.Redis:
        attempts.append(1)
        raise OSError("away")

    shipper = make(connect, None)
    assert not shipper.prepare()
    assert not shipper.prepare()
    assert len(attempts) == 1
    assert not shipper.prepare(now=True)
    assert len(attempts) == 2
    assert (shipper.left_s() or 0) > 0


def test_a_setting_that_differs_is_reported_and_waits(
    client: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    """With the wrong number of shards nothing is sent to the wrong stream."""
    client.set("runfold:shards", 8)
    assert not make(lambda: client, 4).prepare()
    assert "RUNFOLD_SHARDS=8" in caplog.text


def test_failures_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """An outage does not flood the log."""

    def connect() -> redis.Redis:
        raise OSError("away")

    shipper = make(connect, None)
    for _ in range(10):
        shipper.prepare(now=True)
    assert len(caplog.records) == 1


def test_a_flushed_redis_is_told_the_number_again(client: Flaky) -> None:
    """What was agreed before a Redis lost its data is what holds afterwards."""
    client.set("runfold:shards", 2)
    shipper = make(lambda: client, None)
    assert shipper.prepare()
    client.flushall()
    shipper.close()
    assert shipper.prepare()
    assert client.get("runfold:shards") == b"2"


def test_another_number_sorts_the_waiting_events_again(client: Flaky) -> None:
    """A deployment that was set up anew with more shards gets the events where it reads them."""
    client.set("runfold:shards", 1)
    shipper = make(lambda: client, None)
    assert shipper.prepare()
    items = [(Heartbeat(), f"run{number}", number, 0, 1, True) for number in range(20)]
    shipper.add(packer.pack(items, 1)[0])
    client.set("runfold:shards", 16)
    shipper.close()
    assert shipper.prepare()
    assert send(shipper) == (20, 20)
    for number in range(20):
        ids = [id_ for frame in stream(client, f"run{number}", 16) for id_ in frame]
        assert number in ids


def test_pauses_grow_up_to_a_limit() -> None:
    """A long outage is asked about every few seconds, and a success starts over."""
    pause = Backoff()
    for _ in range(100):
        pause.failed()
    assert 2 <= pause.left_s() <= 5
    pause.worked()
    assert pause.left_s() == 0
    pause.failed()
    assert pause.left_s() <= 0.05
