"""How long from XADD until the run's row can be read, for every frame of a steady stream.

The sender notes the monotonic clock before each XADD. Here `positions` is read about every
millisecond (a frame's effects and its position are one transaction, so a frame that is covered is
visible); a frame's figure is the time of the first look that covers it. So figures err on the high
side, by up to the time between two looks, which the report gives as `latency_look_ms`. Some twenty
times a second the row of a run is read as well, the moment its frame is covered; a row that is not
there then is an error.
"""

import gc
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final, NamedTuple

import psycopg

from benchmarks.children import Child
from benchmarks.figures import Figures
from benchmarks.fold_worker import StreamId, await_positions, load_positions, parse_id, start_worker
from benchmarks.meter import Meter, per_event
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from runfold.protocol.ids import run_key

RATES: Final = (5_000, 50_000)
WARM_UP_S: Final = 1.5
_LOOK_S: Final = 0.001
_PATIENCE_S: Final = 120.0


class Look(NamedTuple):
    """The positions from that moment until the next look."""

    at_ns: int
    positions: dict[int, StreamId]


def measure(servers: Servers, sizes: Sizes, figures: Figures) -> None:
    """p50 and p99 at each rate; the time is cut into as many windows as there are repeats."""
    for rate in RATES:
        with servers.database() as url:
            _measure_rate(servers, url, rate, sizes, figures)


def _measure_rate(servers: Servers, url: str, rate: int, sizes: Sizes, figures: Figures) -> None:
    seconds = WARM_UP_S + sizes.latency_s
    pace = {"redis_url": servers.redis_url, "events_per_s": rate, "seconds": seconds}
    with start_worker(servers, url) as worker, Child("paced_sender", **pace) as sender:
        sender.await_ready()
        servers.wear_in(url)
        servers.settle(url)
        worker.go()
        await_positions(url)
        meter = Meter(worker=worker.pid, sender=sender.pid, **servers.pids)
        sender.release()
        probe = Probe(url, sender)
        probe.run(worker)
        used = meter.read()
    frames, looks = probe.frames, probe.looks
    figures.notes[f"latency_{rate}"] = {
        "frames": len(frames),
        "rows_checked": probe.checked,
        "latency_look_ms": probe.look_gaps_ms(),
        "sender_late_ms_max": probe.late_ms,
        "cpu_us_per_event": per_event(used, round(rate * seconds)),
    }
    first_ns = frames[0][2] + int(WARM_UP_S * 1e9)
    window_ns = max(1, (frames[-1][2] - first_ns) // sizes.repeats + 1)
    windows: dict[int, list[float]] = {}
    for sent_ns, waited_ms in waits_of(frames, looks):
        if sent_ns >= first_ns:
            windows.setdefault((sent_ns - first_ns) // window_ns, []).append(waited_ms)
    for waits in windows.values():
        figures.add(f"latency.{rate}_p50_ms", percentile(waits, 50))
        figures.add(f"latency.{rate}_p99_ms", percentile(waits, 99))


class Probe:
    """Looks at the positions until all that was sent is covered."""

    def __init__(self, url: str, sender: Child) -> None:
        self._url = url
        self._sender = sender
        self._samples: deque[dict[str, Any]] = deque()
        self._waiting: list[dict[str, Any]] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self.frames: list[tuple[int, StreamId, int]] = []
        self.looks: list[Look] = []
        self._looked_ns: list[int] = []
        self.checked = 0
        self.late_ms = 0.0

    def run(self, worker: Child) -> None:
        """Returns when the last frame is committed; raises when that takes too long."""
        self._listener.start()
        with _no_collection(), psycopg.connect(self._url, autocommit=True) as connection:
            deadline = None
            while True:
                positions = load_positions(connection)
                self._looked_ns.append(time.monotonic_ns())
                if not self.looks or positions != self.looks[-1].positions:
                    self.looks.append(Look(self._looked_ns[-1], positions))
                self._check_rows(connection, positions)
                if not self._listener.is_alive():
                    deadline = deadline or time.monotonic() + _PATIENCE_S
                    if not self.frames:
                        raise RuntimeError("the sender did not come to its end")
                    last = {shard: entry for shard, entry, _ in self.frames}
                    if all(positions[shard] >= entry for shard, entry in last.items()):
                        return
                    if time.monotonic() > deadline:
                        raise TimeoutError("the worker does not catch up with what was sent")
                    worker.check()
                time.sleep(_LOOK_S)

    def look_gaps_ms(self) -> dict[str, float]:
        """How long between two looks: by so much a frame's figure may be too high."""
        gaps_ms = [(after - before) / 1e6 for before, after in pairwise(self._looked_ns)]
        return {"p50": percentile(gaps_ms, 50), "p99": percentile(gaps_ms, 99), "max": max(gaps_ms)}

    def _listen(self) -> None:
        while "frames" not in (said := self._sender.answer()):
            self._samples.append(said)
        self.late_ms = said["late_ms_max"]
        self.frames = [(shard, parse_id(entry), at) for shard, entry, at in said["frames"]]

    def _check_rows(self, connection: psycopg.Connection, positions: dict[int, StreamId]) -> None:
        while self._samples:
            self._waiting.append(self._samples.popleft())
        for sample in list(self._waiting):
            if positions[sample["shard"]] < parse_id(sample["id"]):
                continue
            self._waiting.remove(sample)
            self.checked += 1
            key = (sample["shard"], run_key(sample["run"]))
            query = "SELECT 1 FROM runs WHERE shard = %s AND run = %s"
            if connection.execute(query, key).fetchone() is None:
                raise RuntimeError(f"{sample} is committed, but its run cannot be read")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage: among 50,000 looks, a collection took 0.2 s, which counted as latency."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def waits_of(frames: list[tuple[int, StreamId, int]], looks: list[Look]) -> list[tuple[int, float]]:
    """When each frame was sent, and the milliseconds until it was seen to be covered."""
    next_look: dict[int, int] = {}
    waits = []
    for shard, entry, sent_ns in frames:  # of a shard: in the order of their ids
        number = next_look.get(shard, 0)
        while looks[number].positions[shard] < entry:
            number += 1
        next_look[shard] = number
        waits.append((sent_ns, (looks[number].at_ns - sent_ns) / 1e6))
    return waits


def percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]
