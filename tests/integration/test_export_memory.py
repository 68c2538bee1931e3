"""The memory of an export does not depend on the number of its runs."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import zstandard

from frame_delivery import SHARDS
from runfold.protocol.codec import Envelope
from runfold.protocol.frames import encode_packed_frame
from runfold.protocol.ids import make_run_id
from runfold.protocol.streams import shard_of
from runfold_workers.consumer.committer import Committer
from runfold_workers.fold.frame_decoder import StreamEntry

pytestmark = pytest.mark.slow

RUNS = 100_000
FEW = 3_000
A_TIME = 20_000
"""Runs to fold per batch."""
MAX_GROWTH_KB = 16 * 1024
"""Far less than the runs take: some 50 MB as NDJSON, and several times that as objects."""

EXPORT = """
import sys
from pathlib import Path
from runfold_storage import History

url, form, file, workflow = sys.argv[1:]
with History(url, pool_size=1) as history, open(file, "wb") as out:
    runs = []
    for piece in history.export(form, on_progress=runs.append, workflow=workflow or None):
        out.write(piece)
peak = next(
    line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
)
print(sum(runs), peak.split()[1])
"""


def envelopes(first: int, runs: int) -> Iterator[Envelope]:
    """Yield runs a millisecond apart, with their first event; a few have their own workflow."""
    begin_us = 1_790_000_000_000_000
    for number in range(first, first + runs):
        at_us = begin_us + number * 1000
        workflow = "few" if number < FEW else "many"
        body = f'{{"workflow":"{workflow}","project":"acme","tags":{{"number":"{number}"}}}}'
        yield Envelope("started", make_run_id(at_us), 0, at_us, body.encode())


@pytest.fixture
def many_url(deployment: None, database: psycopg.Connection, migrated_url: str) -> str:
    """Fold all of them as the worker does."""
    frames = itertools.count(1)
    compressor = zstandard.ZstdCompressor(level=1)
    committer = Committer(database)
    committer.own(range(SHARDS))
    for first in range(0, RUNS, A_TIME):
        by_shard: dict[int, list[Envelope]] = {shard: [] for shard in range(SHARDS)}
        for envelope in envelopes(first, A_TIME):
            by_shard[shard_of(envelope.run, SHARDS)].append(envelope)
        committer.commit(
            [
                StreamEntry(shard, f"{next(frames)}-0", encode_packed_frame(its, compressor))
                for shard, its in by_shard.items()
            ]
        )
    database.execute("ANALYZE runs")
    return migrated_url


def export(url: str, form: str, file: Path, workflow: str) -> tuple[int, int]:
    """Export in a child process; return its number of runs and peak resident set in KB."""
    words = [sys.executable, "-c", EXPORT, url, form, str(file), workflow]
    done = subprocess.run(words, capture_output=True, check=True, timeout=300)
    runs, peak_kb = done.stdout.split()
    return int(runs), int(peak_kb)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_does_not_follow_the_number_of_runs(many_url: str, tmp_path: Path) -> None:
    """100,000 runs need as much memory as 3,000, in every format."""
    export(many_url, "csv", tmp_path / "few", "few")  # compiles modules, which takes memory too
    for form in ("csv", "ndjson", "parquet"):
        few, its_peak_kb = export(many_url, form, tmp_path / "few", "few")
        many, peak_kb = export(many_url, form, tmp_path / "many", "")

        assert (few, many) == (FEW, RUNS)
        assert (tmp_path / "many").stat().st_size > 5 * (tmp_path / "few").stat().st_size
        assert peak_kb - its_peak_kb < MAX_GROWTH_KB, form
