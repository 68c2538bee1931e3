"""Children that are runners: one at a pace, one that emits as fast as it can, one that floods.

The events are made before, as a runner has them at hand; ids and times are left to the recorder.
What we prepare is frozen out of the garbage collector's sight: a runner would not hold it.
"""

import gc
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from benchmarks.children import arguments, await_go, say
from benchmarks.workload import EVENTS_PER_RUN, INTERLEAVED, run_event
from runfold import Event, Recorder, make_run_id

_WORK_S: Final = 0.0001
_REST_S: Final = 0.0002
_VARIANTS: Final = 1000
FLOOD_NODES: Final = 3
_FLOOD_DATA: Final = {"text": "x" * 289}
"""300 bytes of JSON."""


def main() -> None:
    """In the child."""
    given = arguments()
    measure = {
        "paced": _measure_paced,
        "saturated": _measure_saturated,
        "flood": _measure_flood,
    }[given["manner"]]
    say(measure(given["redis_url"], given["runs"]))


def _measure_paced(redis_url: str, runs: int) -> dict[str, float]:
    """One event at a time: the same for a runner that computes in between and for one that sleeps.

    After a sleep the caches are cold, and whatever a runner does next is slow. `floor` is what one
    append to a deque costs at the pace of the busy runner: nothing less can be asked of `emit`,
    and its p99 is this machine's noise.
    """
    with Recorder(redis_url) as recorder:
        ready = [_prepare(runs) for _ in range(3)]
        _warm_up(recorder)
        await_go()
        kept: deque[tuple[Event, int]] = deque()
        series = {
            "thread_us": _times_us(recorder.emit, ready[0], time.thread_time_ns, _work),
            "idle_us": _times_us(recorder.emit, ready[1], time.thread_time_ns, _rest),
            "wall_us": _times_us(recorder.emit, ready[2], time.perf_counter_ns, _work),
            "floor_us": _times_us(
                lambda event: kept.append((event, 1)), ready[0], time.thread_time_ns, _work
            ),
        }
        _check(recorder.flush(timeout_s=60))
    return {
        f"{name}_p{percent}": _percentile(times_us, percent)
        for name, times_us in series.items()
        for percent in (50, 99)
    }


def _measure_saturated(redis_url: str, runs: int) -> dict[str, float]:
    """All events in one loop, then flush; both count for the process and for the rate."""
    ready = _prepare(runs)
    # Room for everything: what is measured is the way into Redis, not a full buffer.
    room = {"buffer_events": 2 * len(ready) + 1000, "buffer_bytes": 16 * 1024**3}
    with Recorder(redis_url, **room) as recorder:  # type: ignore[arg-type]  # mypy: any keyword
        _warm_up(recorder)
        await_go()
        emit = recorder.emit
        began, process_began = time.perf_counter(), time.process_time()
        thread_began = time.thread_time()
        for event in ready:
            emit(event)
        thread_s = time.thread_time() - thread_began
        flushed = recorder.flush(timeout_s=300)
        process_s = time.process_time() - process_began
        elapsed_s = time.perf_counter() - began
        _check(flushed)
    return {
        "saturated_thread_us": thread_s / len(ready) * 1e6,
        "process_us": process_s / len(ready) * 1e6,
        "events_per_s": len(ready) / elapsed_s,
    }


def _measure_flood(redis_url: str, runs: int) -> dict[str, float]:
    """Runs of three nodes through the context managers, with default settings, in one loop."""
    with Recorder(redis_url) as recorder:
        await_go()
        began = time.perf_counter()
        for _ in range(runs):
            with recorder.run("flood", inputs=_FLOOD_DATA) as run:
                for number in range(FLOOD_NODES):
                    with run.node(f"node {number}", inputs=_FLOOD_DATA) as node:
                        node.outputs = _FLOOD_DATA
                run.outputs = _FLOOD_DATA
        elapsed_s = time.perf_counter() - began
        flushed = recorder.flush(timeout_s=300)
    return {
        "events_per_s": runs * (2 + 2 * FLOOD_NODES) / elapsed_s,
        "dropped": flushed.dropped,
        "not_sent": flushed.pending + flushed.spooled,
    }


def _prepare(runs: int) -> list[Event]:
    """The events of so many runs, interleaved, with their run's id."""
    kinds = [
        [run_event(f"emit-{variant % 20}", number) for number in range(EVENTS_PER_RUN)]
        for variant in range(min(_VARIANTS, runs))
    ]
    ready = []
    for first in range(0, runs, INTERLEAVED):
        together = [make_run_id() for _ in range(min(INTERLEAVED, runs - first))]
        for number in range(EVENTS_PER_RUN):
            for offset, run in enumerate(together):
                event = kinds[(first + offset) % len(kinds)][number]
                ready.append(msgspec.structs.replace(event, run=run))
    return ready


def _warm_up(recorder: Recorder) -> None:
    for event in _prepare(20):
        recorder.emit(event)
    recorder.flush(timeout_s=10)
    gc.collect()
    gc.freeze()


def _times_us(
    emit: Callable[[Event], object],
    ready: list[Event],
    clock: Callable[[], int],
    pause: Callable[[], None],
) -> list[float]:
    """In order of size, less what the clock itself costs."""
    times_ns = []
    for event in ready:
        began = clock()
        emit(event)
        times_ns.append(clock() - began)
        pause()
    own_ns = _cost_ns(clock, pause)
    return sorted(max(0.0, taken - own_ns) / 1000 for taken in times_ns)


def _cost_ns(clock: Callable[[], int], pause: Callable[[], None]) -> float:
    """What the clock puts into each time, at the same pace: it too runs on cold caches."""
    costs = []
    for _ in range(500):
        began = clock()
        costs.append(clock() - began)
        pause()
    return statistics.median(costs)


def _rest() -> None:
    time.sleep(_REST_S)


def _work() -> None:
    """Compute for a while, as a busy runner does between two events."""
    end = time.perf_counter() + _WORK_S
    while time.perf_counter() < end:
        pass


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def _check(flushed: Any) -> None:
    if flushed.pending or flushed.dropped:
        raise RuntimeError(f"not everything was sent: {flushed}")


if __name__ == "__main__":
    main()
