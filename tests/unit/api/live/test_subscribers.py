"""The events that wait for a slow client."""

from collections.abc import Sequence

from runfold_api.live import subscribers
from runfold_api.live.subscribers import Subscriber, Topic
from runfold_api.live.updates import StreamEvent
from runfold_storage.change_feed.reader import Change, decode_feed_cursor
from runfold_storage.filters.run_filter import RunFilter


def subscriber_at(*cursor: int) -> Subscriber:
    subscriber = Subscriber(Topic(RunFilter()))
    subscriber.start_queueing()
    subscriber.set_position(cursor)
    return subscriber


def event(shard: int, number: int, run: int, data: bytes = b"{}") -> StreamEvent:
    return StreamEvent(Change(shard, number, run.to_bytes(16, "big")), "changed", data)


def taken(subscriber: Subscriber) -> Sequence[tuple[str, int, int]]:
    return [
        (at, int.from_bytes(each.change.run), each.change.change_seq)
        for at, each in subscriber.take()
    ]


def test_only_the_newest_state_of_a_run_waits() -> None:
    """It takes the place of its number, so that the ids of other events stay valid."""
    subscriber = subscriber_at(0, 0)
    subscriber.add([event(0, 1, run=1), event(0, 2, run=2), event(1, 1, run=3)], (2, 1))
    subscriber.add([event(0, 3, run=1)], (3, 1))
    assert taken(subscriber) == [("2.0", 2, 2), ("3.0", 1, 3), ("3.1", 3, 1)]
    assert taken(subscriber) == []


def test_changes_of_a_snapshot_are_not_sent_again() -> None:
    """The broker may report them before, while or after the snapshot is read."""
    subscriber = Subscriber(Topic(RunFilter()))
    subscriber.start_queueing()
    subscriber.add([event(0, 4, run=1)], (4,))
    subscriber.add([event(0, 6, run=2)], (6,))
    subscriber.set_position((5,))
    subscriber.add([event(0, 5, run=3)], (6,))
    assert taken(subscriber) == [("6", 2, 6)]


def test_an_older_change_does_not_replace_a_newer_one() -> None:
    """Missed changes are read separately and may arrive late."""
    subscriber = subscriber_at(0)
    subscriber.add([event(0, 2, run=1, data=b"new")], (2,))
    subscriber.add([event(0, 1, run=1, data=b"old")], (1,))
    ((_, each),) = subscriber.take()
    assert each.data == b"new"


def test_too_many_waiting_runs_become_a_snapshot() -> None:
    """Nothing waits until then, and no change after the snapshot is lost."""
    subscriber = subscriber_at(0)
    many = subscribers.MAX_WAITING + 1
    subscriber.add([event(0, number, run=number) for number in range(1, many + 1)], (many,))
    assert subscriber.needs_snapshot
    assert subscriber.take() == []
    subscriber.start_queueing()
    subscriber.add([event(0, many + 1, run=1)], (many + 1,))
    subscriber.set_position((many,))
    assert taken(subscriber) == [(str(many + 1), 1, many + 1)]


def test_changes_of_other_filters_count_as_sent_if_nothing_waits() -> None:
    """Otherwise the id of a client with a quiet filter would become too old."""
    subscriber = subscriber_at(0, 0)
    subscriber.add([event(0, 1, run=1)], (1, 7))
    assert decode_feed_cursor(subscriber.position()) == (0, 0)
    subscriber.take()
    assert decode_feed_cursor(subscriber.position()) == (1, 7)
