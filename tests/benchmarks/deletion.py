"""How long from XADD until the run's row can be read, while another project is deleted.

A history of one project is folded and indexed. Then a second project sends at a steady rate, as in
`latency`: first by itself, then while a worker for jobs deletes all of the first. Of the latter
only frames count that were sent between the job's beginning and its end. By itself it sends for a
minute, so that both have what happens once a minute: autovacuum, and the system's writing of pages.
One worker folds all of it, so its peak memory is that of the history and of both measurements.
"""

import threading
import time
from typing import Any, Final

import psycopg

from benchmarks.children import Child
from benchmarks.figures import Figures
from benchmarks.fold_worker import await_folded, last_ids, start_worker
from benchmarks.latency import WARM_UP_S, Probe, percentile, waits_of
from benchmarks.meter import Meter, now_bytes, peak_bytes
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.stream_filler import fill
from benchmarks.workload import PROJECT
from runfold_storage.admin import Admin
from runfold_storage.jobs import Job
from runfold_workers.jobs.worker import SearchIndexing

RATE: Final = 3_000
_OTHER: Final = "other"
_SLOWEST: Final = 100
"""Runs a second: so long there are events beside a deletion, at least for half a minute."""
_ALONE_S: Final = 60.0
_FASTEST: Final = 200
"""Runs a second: if the deletion takes less than a minute, so does the measurement before it."""
_LOOK_S: Final = 0.05


def measure(servers: Servers, sizes: Sizes, figures: Figures) -> None:
    """p50 and p99 without a deletion and during one, and the worker's memory."""
    with (
        servers.database() as url,
        start_worker(servers, url) as worker,
        Child("job_worker", redis_url=servers.redis_url, database_url=url) as jobs,
    ):
        fill(servers.redis_url, sizes.deleted_runs)
        worker.go()
        with psycopg.connect(url, autocommit=True) as connection:
            await_folded(connection, last_ids(servers.redis_url), worker)
            indexing = SearchIndexing(connection)
            while indexing.turn():
                pass
            connection.execute("VACUUM (ANALYZE)")  # as autovacuum has done a minute later
        jobs.go()
        servers.settle(url)
        alone_s = min(_ALONE_S, sizes.deleted_runs / _FASTEST)
        alone = _Sending(servers, url, worker, WARM_UP_S + alone_s)
        alone.run()
        folded_mb = peak_bytes(worker.pid) / 1e6
        meter = Meter(worker=worker.pid, jobs=jobs.pid, **servers.pids)
        longest_s = max(30.0, sizes.deleted_runs / _SLOWEST)
        beside = _Sending(servers, url, worker, longest_s)
        deletion = _Deletion(url)
        beside.run(deletion)
        used = meter.read()
        peak_mb, after_mb = peak_bytes(worker.pid) / 1e6, now_bytes(worker.pid) / 1e6
    waits_alone = alone.waits_ms(alone.began_ns + int(WARM_UP_S * 1e9))
    waits_beside = beside.waits_ms(deletion.began_ns, deletion.ended_ns)
    deletion_s = (deletion.ended_ns - deletion.began_ns) / 1e9
    figures.add("deletion.alone_p50_ms", percentile(waits_alone, 50))
    figures.add("deletion.alone_p99_ms", percentile(waits_alone, 99))
    figures.add("deletion.beside_p50_ms", percentile(waits_beside, 50))
    figures.add("deletion.beside_p99_ms", percentile(waits_beside, 99))
    figures.add("deletion.ratio", percentile(waits_beside, 99) / percentile(waits_alone, 99))
    figures.add("deletion.runs_per_s", sizes.deleted_runs / deletion_s)
    figures.add("deletion.worker_mb", peak_mb)
    figures.notes["deletion"] = {
        "frames": {"alone": len(waits_alone), "beside": len(waits_beside)},
        "visible_before_its_end": beside.visible(deletion.began_ns, deletion.ended_ns),
        "longest_ms": {"alone": max(waits_alone), "beside": max(waits_beside)},
        "look_ms": {"alone": alone.look_gaps_ms(), "beside": beside.look_gaps_ms()},
        "seconds": deletion_s,
        "worker_mb": {"before": folded_mb, "peak": peak_mb, "after": after_mb},
        "cpu_s": used,
    }


class _Deletion:
    """Everything of the first project, as a job."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.began_ns = self.ended_ns = 0

    def run(self) -> None:
        """Returns when a worker has done it."""
        upkeep = Admin(self._url, at_once=0)
        self.began_ns = time.monotonic_ns()
        job = upkeep.delete_runs(project=PROJECT)
        assert isinstance(job, Job)
        while job.finished_at is None:
            time.sleep(_LOOK_S)
            found = upkeep.job(job.id)
            assert found is not None
            job = found
        self.ended_ns = time.monotonic_ns()
        if job.status != "completed":
            raise RuntimeError(f"the deletion came to an end as {job.status}: {job.error}")


class _Sending:
    """The second project's events: for so long, or until a deletion has come to its end."""

    def __init__(self, servers: Servers, url: str, worker: Child, seconds: float) -> None:
        self._pace: dict[str, Any] = {
            "redis_url": servers.redis_url,
            "events_per_s": RATE,
            "seconds": seconds,
            "project": _OTHER,
        }
        self._url = url
        self._worker = worker
        self._probe: Probe
        self.began_ns = 0

    def run(self, deletion: _Deletion | None = None) -> None:
        """Returns when all that was sent can be read."""
        failed: list[Exception] = []

        def delete_beside(of: _Deletion) -> None:
            try:
                time.sleep(WARM_UP_S)
                of.run()
            except Exception as error:
                failed.append(error)
            sender.release()

        with Child("paced_sender", **self._pace) as sender:
            sender.go()
            self.began_ns = time.monotonic_ns()
            self._probe = Probe(self._url, sender)
            if deletion is None:
                self._probe.run(self._worker)
            else:
                thread = threading.Thread(target=delete_beside, args=(deletion,))
                thread.start()
                self._probe.run(self._worker)
                thread.join()
        if failed:
            raise failed[0]

    def waits_ms(self, after_ns: int, before_ns: int | None = None) -> list[float]:
        """How long each frame took that was sent between these moments."""
        return [waited_ms for _, waited_ms in self._waits(after_ns, before_ns)]

    def visible(self, after_ns: int, before_ns: int) -> int:
        """How many frames were sent and could be read between these moments."""
        waits = self._waits(after_ns, before_ns)
        return sum(sent_ns + waited_ms * 1e6 < before_ns for sent_ns, waited_ms in waits)

    def look_gaps_ms(self) -> dict[str, float]:
        """See `Probe`."""
        return self._probe.look_gaps_ms()

    def _waits(self, after_ns: int, before_ns: int | None) -> list[tuple[int, float]]:
        return [
            (sent_ns, waited_ms)
            for sent_ns, waited_ms in waits_of(self._probe.frames, self._probe.looks)
            if sent_ns >= after_ns and (before_ns is None or sent_ns < before_ns)
        ]
