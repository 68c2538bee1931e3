"""What the API keeps for its streams is bounded in bytes, however large single runs are."""

import msgspec
from msgspec import Raw

from runfold_api.live.run_subscriptions import RunSubscriber
from runfold_api.live.subscribers import MAX_WAITING_BYTES, BoundedQueue, Subscriber, Topic
from runfold_api.live.updates import StreamEvent
from runfold_storage.change_feed.reader import Change
from runfold_storage.filters.run_filter import RunFilter

KIB = 1024


def change(number: int, size: int, run: int | None = None) -> StreamEvent:
    """A change of a run whose summary has `size` bytes."""
    key = (number if run is None else run).to_bytes(16, "big")
    return StreamEvent(Change(0, number, key), "changed", b"x" * size)


def make_subscriber(max_bytes: int) -> Subscriber:
    """A subscriber that has everything up to the first change."""
    subscriber = Subscriber(Topic(RunFilter()), max_bytes)
    subscriber.set_position((0,))
    return subscriber


def raw(size: int) -> Raw:
    """An encoded text of `size` bytes."""
    return Raw(msgspec.json.encode("x" * (size - 2)))


def test_a_burst_of_large_notifications_drops_the_oldest() -> None:
    """The broker sees the gap in the numbers and reads what it has dropped."""
    backlog: BoundedQueue[bytes] = BoundedQueue(10 * KIB)
    for number in range(5):
        backlog.add(bytes([number]) * 4 * KIB)
    assert [message[0] for message in backlog.take()] == [3, 4]
    assert backlog.take() == []
    backlog.add(b"y" * 9 * KIB)
    assert len(backlog.take()) == 1


def test_few_runs_with_large_summaries_become_a_snapshot() -> None:
    """A slow client is bounded by bytes before it is by the number of runs."""
    subscriber = make_subscriber(10 * KIB)
    subscriber.add([change(1, 4 * KIB)], (1,))
    subscriber.add([change(2, 4 * KIB)], (2,))
    assert not subscriber.needs_snapshot
    subscriber.add([change(3, 4 * KIB)], (3,))
    assert subscriber.needs_snapshot
    assert subscriber.take() == []  # type: ignore[unreachable]  # the attribute has changed


def test_a_replaced_state_no_longer_counts() -> None:
    """A run that changes often while its client is slow has one state waiting."""
    subscriber = make_subscriber(10 * KIB)
    for number in range(1, 100):
        subscriber.add([change(number, 4 * KIB, run=1)], (number,))
    assert not subscriber.needs_snapshot
    assert [cursor for cursor, _ in subscriber.take()] == ["99"]


def test_bytes_that_were_sent_no_longer_count() -> None:
    """A client that keeps up never needs a snapshot."""
    subscriber = make_subscriber(MAX_WAITING_BYTES)
    for number in range(1, 10):
        subscriber.add([change(number, 7 * KIB * KIB)], (number,))
        assert len(subscriber.take()) == 1
    assert not subscriber.needs_snapshot


def test_large_lines_of_output_become_a_snapshot() -> None:
    """A line may have a megabyte; the output that waits for a client may not be gigabytes."""
    subscriber = RunSubscriber(max_bytes=10 * KIB)
    subscriber.needs_snapshot = False
    subscriber.add(None, {}, [raw(4 * KIB)] * 2)
    assert not subscriber.needs_snapshot
    subscriber.add(None, {}, [raw(4 * KIB)])
    assert subscriber.needs_snapshot
    assert subscriber.output == []  # type: ignore[unreachable]  # the attribute has changed


def test_the_tail_of_large_output_is_short() -> None:
    """The newest lines remain; by count alone they could hold half a gigabyte."""
    tail: BoundedQueue[Raw] = BoundedQueue(10 * KIB, max_items=500)
    for size in (4 * KIB, 4 * KIB, KIB):
        tail.add(raw(size))
    assert list(map(len, map(bytes, tail.items()))) == [4 * KIB, 4 * KIB, KIB]
    tail.add(raw(2 * KIB))
    assert list(map(len, map(bytes, tail.items()))) == [4 * KIB, KIB, 2 * KIB]
    for _ in range(600):
        tail.add(raw(3))
    assert len(tail.items()) == 500
