"""What an event costs the runner."""

import time
from typing import Any

import msgspec

from benchmarks.workload import run_event
from runfold import Recorder
from runfold.ids import make_run_id


def measure(redis_url: str, count: int) -> dict[str, Any]:
    """Microseconds on the runner's thread, and of the whole process while it is saturated."""
    events = [run_event("emit", number % 10) for number in range(1000)]
    run = make_run_id()
    recorder = Recorder(redis_url, buffer_events=2 * count, buffer_bytes=4 * 1024**3)
    recorder.emit(_addressed(events[0], run, 0))
    recorder.flush(timeout_s=10)

    paced = []
    for number in range(1, 2001):  # the flusher idles between them: what a quiet runner pays
        event = _addressed(events[number % 1000], run, number)
        began = time.perf_counter_ns()
        recorder.emit(event)
        paced.append(time.perf_counter_ns() - began)
        time.sleep(0.0002)

    ready = [_addressed(events[number % 1000], run, 3000 + number) for number in range(count)]
    began = time.perf_counter()
    process_began = time.process_time()
    thread_began = time.thread_time()
    for event in ready:
        recorder.emit(event)
    thread_s = time.thread_time() - thread_began
    flushed = recorder.flush(timeout_s=120)
    process_s = time.process_time() - process_began
    elapsed_s = time.perf_counter() - began
    recorder.close()
    if flushed.pending or flushed.dropped:
        raise RuntimeError(f"not everything was sent: {flushed}")
    paced.sort()
    return {
        "runner_thread_us_p50": paced[len(paced) // 2] / 1000,
        "runner_thread_us_p99": paced[len(paced) * 99 // 100] / 1000,
        "runner_thread_us_saturated": thread_s / count * 1e6,
        "whole_process_us_saturated": process_s / count * 1e6,
        "into_redis_events_per_s": count / elapsed_s,
    }


def _addressed(event: Any, run: str, number: int) -> Any:
    return msgspec.structs.replace(event, run=run, id=number)
