"""The bounded queue between the recording threads and the flusher."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from runfold import Heartbeat
from runfold.delivery import buffer
from runfold.delivery.buffer import Buffer, FlushMarker
from runfold.serialization.event_cleanup import BufferedEvent
from runfold.settings import Backpressure


def item(number: int = 0, size: int = 10) -> BufferedEvent:
    return (Heartbeat(), "r", number, 0, size, True)


def make(max_events: int, max_bytes: int) -> Buffer:
    """A buffer whose flusher needs no waking."""
    buffer = Buffer(max_events, max_bytes, lambda: None)
    buffer.notify_on_put = False
    return buffer


def numbers(taken: list[BufferedEvent | FlushMarker]) -> list[int]:
    return [one[2] for one in taken if not isinstance(one, FlushMarker)]


def test_items_come_out_in_order() -> None:
    """First in, first out, at most as many as were asked for."""
    buffer = make(10, 1000)
    for number in range(5):
        assert buffer.put(item(number))
    assert numbers(buffer.take(3)) == [0, 1, 2]
    assert numbers(buffer.take(3)) == [3, 4]


def test_the_newest_is_refused_when_there_are_too_many() -> None:
    """Accepted events are not dropped; the newest one is refused and counted."""
    buffer = make(2, 1000)
    assert [buffer.put(item(number)) for number in range(3)] == [True, True, False]
    assert (buffer.dropped, numbers(buffer.take(9))) == (1, [0, 1])


def test_the_newest_is_refused_when_there_are_too_many_bytes() -> None:
    """A few large events fill the buffer as many small ones do."""
    buffer = make(100, 25)
    assert [buffer.put(item(size=10)) for _ in range(3)] == [True, True, False]
    assert not buffer.put(item(size=6))
    assert buffer.put(item(size=5))


def test_taken_items_count_until_they_are_released() -> None:
    """The bound holds for waiting and taken items together."""
    buffer = make(2, 1000)
    buffer.put(item())
    buffer.put(item())
    buffer.take(2)
    assert (buffer.pending, buffer.put(item())) == (2, False)
    buffer.release(1, 10)
    assert (buffer.pending, buffer.put(item())) == (1, True)


def test_several_are_accepted_together_or_not_at_all() -> None:
    """A part of an execution would look like a lost run."""
    buffer = make(3, 1000)
    assert buffer.put_all([item(0), item(1)])
    assert not buffer.put_all([item(2), item(3)])
    assert (buffer.pending, buffer.dropped) == (2, 2)


def test_a_closed_buffer_has_no_room() -> None:
    """After the end everything is refused, and counted."""
    buffer = make(3, 1000)
    buffer.close()
    assert not buffer.put(item())
    assert buffer.dropped == 1


def test_a_marker_separates_earlier_from_later_items() -> None:
    """It comes out after everything that was put before it."""
    buffer = make(10, 1000)
    buffer.put(item(0))
    marker = buffer.put_marker()
    buffer.put(item(1))
    taken = buffer.take(10)
    assert taken[1] is marker
    assert numbers(taken) == [0, 1]


def test_a_withdrawn_marker_leaves_the_buffer() -> None:
    """Flushes that time out do not fill the buffer."""
    buffer = make(10, 1000)
    buffer.put(item())
    for _ in range(100):
        buffer.withdraw(buffer.put_marker())
    assert buffer.pending == 1


def test_a_marker_that_was_taken_can_be_withdrawn() -> None:
    """The flusher may take it while its caller gives up."""
    buffer = make(10, 1000)
    marker = buffer.put_marker()
    buffer.take(1)
    buffer.withdraw(marker)
    assert marker.reached.is_set()


@pytest.mark.parametrize("case", ["put", "put_all", "refused"])
def test_a_put_notifies_only_while_that_is_set(case: str) -> None:
    """A polling flusher costs its runner no wake-up; a sleeping one is woken."""
    calls: list[int] = []
    buffer = Buffer(0 if case == "refused" else 10, 1000, lambda: calls.append(1))
    buffer.notify_on_put = False

    def put() -> object:
        return buffer.put_all([item()]) if case == "put_all" else buffer.put(item())

    put()
    assert calls == []
    buffer.notify_on_put = True
    put()
    assert calls == [1]


@pytest.mark.parametrize("wake", ["put_marker", "wake"])
def test_a_sleeper_is_woken(wake: str) -> None:
    """A marker and a wake-up both end a wait without a time limit."""
    buffer = make(10, 1000)
    sleeper = threading.Thread(target=buffer.wait, args=(None,))
    sleeper.start()
    getattr(buffer, wake)()
    sleeper.join(10)
    assert not sleeper.is_alive()


def test_many_threads_lose_nothing() -> None:
    """What `put` accepted from any thread comes out once, in that thread's order."""
    buffer = make(100_000, 10**9)
    threads = [
        threading.Thread(target=lambda t=t: [buffer.put(item(t * 10_000 + n)) for n in range(5000)])
        for t in range(4)
    ]
    taken: list[int] = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or buffer.pending:
        some = numbers(buffer.take(1000))
        taken += some
        buffer.release(len(some), 10 * len(some))
    assert len(set(taken)) == len(taken) == 20_000
    for t in range(4):
        own = [number for number in taken if number // 10_000 == t]
        assert own == sorted(own)


class Clock:
    """Time that passes while a caller waits; `at` is what happens meanwhile, by its second."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.naps = 0
        self.at: dict[float, Callable[[], object]] = {}

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.naps += 1
        for due_s in [due_s for due_s in self.at if due_s <= self.now_s]:
            self.at.pop(due_s)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(buffer, "time", clock)
    return clock


class Disk:
    """An overflow handler whose disk has room for so many items."""

    def __init__(self, buffer: Buffer, room: int = 0) -> None:
        self.buffer = buffer
        self.room = room
        self.asked = 0
        self.is_busy = self.is_away = False

    def is_held_by_caller(self) -> bool:
        return self.is_busy

    def is_in_outage(self) -> bool:
        return self.is_away

    def spool_oldest(self, is_enough: Callable[[], bool]) -> bool:
        self.asked += 1
        while self.room and not is_enough():
            self.room -= 1
            self.buffer.take(1)
            self.buffer.release(1, 10)
        return is_enough()


def make_full(when_full: Backpressure = "spool", *, room: int = 0) -> tuple[Buffer, Disk]:
    """Two items in a buffer that has no room for a third one."""
    full = Buffer(2, 1000, lambda: None, when_full, wait_s=5)
    full.overflow = disk = Disk(full, room)
    full.notify_on_put = False
    assert full.put_all([item(0), item(1)])
    return full, disk


def send_one(full: Buffer) -> None:
    full.take(1)
    full.release(1, 10)


@pytest.mark.parametrize("when_full", ["spool", "block", "drop_oldest"])
def test_a_full_buffer_is_waited_for(clock: Clock, when_full: Backpressure) -> None:
    """The call returns at the pace of the sender; nothing is dropped."""
    full, disk = make_full(when_full, room=9)
    clock.at[3] = lambda: send_one(full)
    assert full.put(item(2))
    assert clock.now_s >= 3
    assert (full.dropped, disk.asked, numbers(full.take(9))) == (0, 0, [1, 2])


def test_what_finds_no_room_in_time_goes_to_disk_after_what_came_before(clock: Clock) -> None:
    """The wait ends at its bound, and the order of the calls is kept."""
    full, _ = make_full(room=1)
    assert full.put(item(2))
    assert 5 <= clock.now_s < 6
    assert (full.dropped, numbers(full.take(9))) == (0, [1, 2])


def test_a_stall_costs_one_wait(clock: Clock) -> None:
    """While nothing moves, later events go to disk or are dropped at once."""
    full, disk = make_full(room=10)
    assert full.put(item(2))
    naps = clock.naps
    assert all(full.put(item(number)) for number in range(3, 12))
    assert not full.put(item(12))
    assert not full.put(item(13))
    assert (clock.naps, full.dropped) == (naps, 2)
    assert disk.asked == 11, "a disk that failed is not tried again"


def test_calls_wait_again_after_a_stall(clock: Clock) -> None:
    """Once something has moved, the next full buffer is waited for."""
    full, _ = make_full()
    assert not full.put(item(2))
    send_one(full)
    assert full.put(item(3))
    clock.at[clock.now_s + 4] = lambda: send_one(full)
    assert full.put(item(4))
    assert numbers(full.take(9)) == [3, 4]


def test_drop_oldest_does_not_wait_in_an_outage(clock: Clock) -> None:
    """That mode prefers the newest events, and a runner that is not slowed."""
    full, disk = make_full("drop_oldest")
    disk.is_away = True
    assert full.put(item(2))
    assert (clock.naps, full.dropped, numbers(full.take(9))) == (0, 1, [1, 2])


def test_block_waits_without_a_bound_as_long_as_there_is_a_flusher(clock: Clock) -> None:
    """Without a flusher the wait is bounded."""
    full, _ = make_full("block")
    full.flusher = SimpleNamespace(is_alive=lambda: True, is_current=lambda: False)  # type: ignore[assignment]  # a thread
    clock.at[1000] = lambda: send_one(full)
    assert full.put(item(2))
    assert clock.now_s >= 1000
    full.flusher = None
    assert not full.put(item(3))
    assert full.dropped == 1


@pytest.mark.parametrize("caller", ["the flusher", "a thread that spools"])
def test_a_thread_that_moves_events_does_not_wait_for_itself(clock: Clock, caller: str) -> None:
    """A heartbeat, or what a finalizer emits in the middle of it, goes in beyond the bounds."""
    full, disk = make_full()
    if caller == "the flusher":
        full.flusher = SimpleNamespace(is_current=lambda: True)  # type: ignore[assignment]
    else:
        disk.is_busy = True
    assert full.put(item(2))
    assert (clock.naps, full.dropped, full.pending) == (0, 0, 3)


def test_at_the_end_of_the_process_nothing_is_waited_for(clock: Clock) -> None:
    """Without a wait, the item goes to disk or is dropped."""
    full, _ = make_full(room=1)
    full.may_wait = False
    assert [full.put(item(2)), full.put(item(3))] == [True, False]
    assert (clock.naps, full.dropped) == (0, 1)


def test_what_is_more_than_all_room_goes_into_an_empty_buffer(clock: Clock) -> None:
    """A large execution is whole, though it is larger than the buffer."""
    full, _ = make_full("block")

    def send_two() -> None:
        send_one(full)
        send_one(full)

    clock.at[3] = send_two
    assert full.put_all([item(number) for number in range(2, 7)])
    assert numbers(full.take(9)) == [2, 3, 4, 5, 6]


def test_an_event_whose_wait_is_interrupted_is_counted(clock: Clock) -> None:
    """A signal handler raises during the wait."""
    full, _ = make_full()

    def interrupt() -> None:
        raise KeyboardInterrupt

    clock.at[1] = interrupt
    with pytest.raises(KeyboardInterrupt):
        full.put(item(2))
    assert full.dropped == 1
