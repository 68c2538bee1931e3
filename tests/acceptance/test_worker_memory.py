"""A real worker stays within its documented memory, whatever the runs that it folds look like."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import msgspec
import pytest
import zstandard

from acceptance.worker_processes import StartWorker
from conditions import is_folded, wait_until
from frame_delivery import SHARDS, connect_to
from runfold.protocol.codec import Envelope
from runfold.protocol.frames import encode_packed_frame
from runfold.protocol.ids import make_event_id, make_run_id
from runfold.protocol.streams import agree_on_shards, connect, shard_of, stream_key
from table_reader import count_rows

MAX_BYTES = 400 * 1024 * 1024
"""What workers/README.md promises at the default settings."""
FRAME_EVENTS = 4096
START_US = 1_750_000_000_000_000

TAGGED_RUNS, TAGS = 12, 40_000
WORKFLOWS = 50_000
NODES = 100_000
LOG_LINES = 200_000

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def test_large_runs_and_many_workflows_stay_within_the_bound(
    start_worker: StartWorker, redis_url: str, migrated_url: str
) -> None:
    """A backlog of runs with 40,000 tags, 50,000 workflows, 100,000 nodes and 200,000 log lines."""
    with connect(redis_url) as client, connect_to(migrated_url) as database:
        agree_on_shards(client, SHARDS)
        backlog = chain(tagged_runs(), runs_of_many_workflows(), run_of_many_nodes(), long_output())
        for shard, frame in frames_of(backlog):
            client.xadd(stream_key(shard), frame)

        worker = start_worker(redis_url, migrated_url)
        wait_until(lambda: is_folded(client, database), what="the backlog", timeout_s=300)

        peak = peak_bytes(worker.pid)
        assert worker.terminate() == 0
        assert count_rows(database, "runs") == TAGGED_RUNS + WORKFLOWS + 2
        assert count_rows(database, "nodes") == NODES
    assert peak < MAX_BYTES, f"{peak / 2**20:.0f} MiB"


def tagged_runs() -> Iterator[Envelope]:
    """Each tag of a run has a value of its own; half come with its start, half later."""
    for number in range(TAGGED_RUNS):
        tags = {f"tag-{tag}": f"value {number}-{tag}" for tag in range(TAGS)}
        names = list(tags)
        first, second = ({name: tags[name] for name in half} for half in (names[::2], names[1::2]))
        yield from run_of([("started", {"tags": first}), ("annotated", {"tags": second})])


def runs_of_many_workflows() -> Iterator[Envelope]:
    for number in range(WORKFLOWS):
        yield from run_of([("started", {"workflow": f"workflow {number}"}), ("completed", {})])


def run_of_many_nodes() -> Iterator[Envelope]:
    """A hundred nodes at a time are open."""

    def steps() -> Iterator[tuple[str, dict[str, object]]]:
        yield "started", {"workflow": "many nodes"}
        for first in range(0, NODES, 100):
            nodes = [f"node {number}" for number in range(first, first + 100)]
            for node in nodes:
                yield "node_started", {"node": node, "node_type": "task", "parents": nodes[:1]}
            for node in nodes:
                yield "node_finished", {"node": node, "usage": {"input_tokens": 1000}}

    return run_of(steps())


def long_output() -> Iterator[Envelope]:
    lines: Iterator[tuple[str, dict[str, object]]] = (
        ("logged", {"text": f"line {number} " * 5}) for number in range(LOG_LINES)
    )
    begin: tuple[str, dict[str, object]] = ("started", {"workflow": "long output"})
    return run_of(chain([begin], lines))


def run_of(steps: Iterable[tuple[str, dict[str, object]]]) -> Iterator[Envelope]:
    run = make_run_id()
    for number, (kind, body) in enumerate(steps):
        event_id = make_event_id(1, number)
        yield Envelope(kind, run, event_id, START_US + number, msgspec.json.encode(body))


def frames_of(events: Iterable[Envelope]) -> Iterator[tuple[int, dict[bytes, bytes]]]:
    """Frames of at most about half a megabyte, as the SDK sends them."""
    compressor = zstandard.ZstdCompressor()
    waiting: dict[int, list[Envelope]] = {shard: [] for shard in range(SHARDS)}
    sizes = dict.fromkeys(waiting, 0)
    for event in events:
        shard = shard_of(event.run, SHARDS)
        waiting[shard].append(event)
        sizes[shard] += len(event.body)
        if len(waiting[shard]) == FRAME_EVENTS or sizes[shard] > 512 * 1024:
            yield shard, encode_packed_frame(waiting[shard], compressor)
            waiting[shard], sizes[shard] = [], 0
    for shard, left in waiting.items():
        if left:
            yield shard, encode_packed_frame(left, compressor)


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident, as the kernel counts."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has ended")
