"""The bounded memory between the runners' threads and the flusher."""

import threading

import pytest

from runfold import Heartbeat
from runfold.buffer import Barrier, Buffer
from runfold.sealing import Unsealed


def item(number: int = 0, size: int = 10) -> Unsealed:
    return (Heartbeat(), "r", number, 0, size, True)


def make(max_events: int, max_bytes: int) -> Buffer:
    """A buffer whose flusher needs no waking."""
    buffer = Buffer(max_events, max_bytes, lambda: None)
    buffer.alert = False
    return buffer


def numbers(taken: list[Unsealed | Barrier]) -> list[int]:
    return [one[2] for one in taken if not isinstance(one, Barrier)]


def test_items_come_out_in_order() -> None:
    """First in, first out, at most as many as were asked for."""
    buffer = make(10, 1000)
    for number in range(5):
        assert buffer.put(item(number))
    assert numbers(buffer.take(3)) == [0, 1, 2]
    assert numbers(buffer.take(3)) == [3, 4]


def test_the_newest_is_refused_when_there_are_too_many() -> None:
    """What was accepted was promised; what comes too late is counted."""
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
    """Memory is bounded over what waits and what is on its way together."""
    buffer = make(2, 1000)
    buffer.put(item())
    buffer.put(item())
    buffer.take(2)
    assert (buffer.pending, buffer.put(item())) == (2, False)
    buffer.release(1, 10)
    assert (buffer.pending, buffer.put(item())) == (1, True)


def test_several_are_accepted_together_or_not_at_all() -> None:
    """Half an execution would look like one that is lost."""
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


def test_a_barrier_stands_between_before_and_after() -> None:
    """It comes out after everything that was put before it."""
    buffer = make(10, 1000)
    buffer.put(item(0))
    barrier = buffer.put_barrier()
    buffer.put(item(1))
    taken = buffer.take(10)
    assert taken[1] is barrier
    assert numbers(taken) == [0, 1]


def test_a_withdrawn_barrier_leaves_nothing_behind() -> None:
    """Flushing in vain again and again does not fill the buffer."""
    buffer = make(10, 1000)
    buffer.put(item())
    for _ in range(100):
        buffer.withdraw(buffer.put_barrier())
    assert buffer.pending == 1


def test_a_barrier_that_is_gone_can_be_withdrawn() -> None:
    """The flusher may take it at the very moment its caller gives up."""
    buffer = make(10, 1000)
    barrier = buffer.put_barrier()
    buffer.take(1)
    buffer.withdraw(barrier)
    assert barrier.reached.is_set()


@pytest.mark.parametrize("way", ["put", "put_all", "refused"])
def test_the_alarm_sounds_only_while_it_is_set(way: str) -> None:
    """A flusher that looks by itself costs its runner no wake-up; one that sleeps is woken."""
    alarms: list[int] = []
    buffer = Buffer(0 if way == "refused" else 10, 1000, lambda: alarms.append(1))
    buffer.alert = False
    put = (lambda: buffer.put_all([item()])) if way == "put_all" else (lambda: buffer.put(item()))
    put()
    assert alarms == []
    buffer.alert = True
    put()
    assert alarms == [1]


@pytest.mark.parametrize("wake", ["put_barrier", "ring"])
def test_a_sleeper_is_woken(wake: str) -> None:
    """Each way of asking for attention ends a wait without a time limit."""
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
