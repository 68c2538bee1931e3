"""Runs that are changed behind the fold: it forgets those, and goes on at once."""

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from uuid import UUID

import psycopg
import pytest

from conditions import is_folded, run_in_thread, wait_until
from event_histories import NOON_US
from frame_delivery import SHARDS, Sender, encode_fields, make_frames
from oracle import Event, project
from runfold.protocol.ids import make_run_id, run_key
from runfold.protocol.streams import agree_on_shards, connect, shard_of
from runfold_storage.admin import make_deletion
from runfold_storage.checkpoints.change_log import decode_entries
from runfold_storage.checkpoints.positions import load_positions
from runfold_storage.postgres import connections
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.records.rows import Batch
from runfold_storage.retention import run_deletion
from runfold_storage.retention.run_deletion import DeletionLimits, delete_run, delete_runs
from runfold_storage.rollups.shard_lock import lock_shard
from runfold_workers.consumer.committer import Committer
from runfold_workers.consumer.pipeline import Pipeline
from runfold_workers.consumer.worker import Worker, WorkerSettings
from runfold_workers.fold.frame_decoder import StreamEntry
from runfold_workers.metrics import Metrics
from runfold_workers.shards.ownership import ShardLeases
from table_reader import read_projection

pytestmark = pytest.mark.usefixtures("deployment")


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Shards that a worker forgets altogether, or asks the leases about."""
    found: list[int] = []
    for owner, name in ((ShardLeases, "invalidate"), (Committer, "disown")):
        real = getattr(owner, name)

        def note(self: object, shard: int, real: object = real) -> None:
            found.append(shard)
            real(self, shard)  # type: ignore[operator]

        monkeypatch.setattr(owner, name, note)
    return found


@pytest.fixture
def connection(migrated_url: str) -> Iterator[psycopg.Connection]:
    """A worker's connection."""
    with connections.connect(migrated_url, autocommit=True) as connection:
        yield connection


def runs_of(name: str, runs: int) -> list[Event]:
    """Runs of a project: started, annotated and completed."""
    return [
        event
        for number in range(runs)
        for event in (
            started(f"{name}/{number}", project=name),
            annotated(f"{name}/{number}", 1),
            {"type": "completed", "run": f"{name}/{number}", "id": 2, "at_us": NOON_US + 5},
        )
    ]


def started(run: str, **fields: object) -> Event:
    return {"type": "started", "run": run, "id": 0, "at_us": NOON_US, "workflow": "w"} | fields


def annotated(run: str, event_id: int) -> Event:
    tags = {"last": str(event_id)}
    return {"type": "annotated", "run": run, "id": event_id, "at_us": NOON_US + 1, "tags": tags}


def entry(number: int, *events: Event) -> StreamEntry:
    """A frame of these events, which are of one shard."""
    return StreamEntry(shard_of(events[0]["run"], SHARDS), f"{number}-0", encode_fields(events))


def change(database: psycopg.Connection, run: str) -> None:
    """As a correction does that writes what is there already."""
    shard = shard_of(run, SHARDS)
    with lock_shard(database, shard) as held:
        held.bump_generation([run_key(run)])


def test_a_large_deletion_does_not_stop_the_fold(
    database: psycopg.Connection,
    connection: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    given_up: list[int],
) -> None:
    """What another project sends meanwhile becomes visible before the deletion ends."""
    limits = DeletionLimits(page_runs=50, least_rows=5, most_rows=5)
    old, new = runs_of("old", 400), runs_of("new", 400)

    def count_new() -> int:
        found = database.execute("SELECT count(*) FROM runs WHERE project = 'new'").fetchone()
        assert found is not None
        return int(found[0])

    def on_progress(_: int, __: object) -> None:
        if beside.allowed + 20 >= beside.total:
            return  # by then the fold has kept pace with the deletion often enough
        before = count_new()
        beside.allowed += 20
        wait_until(lambda: count_new() > before, what="runs that are sent during the deletion")

    worker = Worker(WorkerSettings(redis_url, migrated_url, SHARDS))
    with connect(redis_url) as client, run_in_thread(worker):
        agree_on_shards(client, SHARDS)
        before = Sender(redis_url, make_frames(old), pause_s=0)
        before.start()
        before.join()
        wait_until(lambda: is_folded(client, database), what="the old runs to be folded")
        given_up.clear()
        beside = Sender(redis_url, make_frames(new, size=3), pause_s=0.004, endless=True)
        beside.allowed = 20
        beside.start()
        prepare_session(connection)
        deletion = make_deletion(project="old")
        deleted = delete_runs(connection, deletion, on_progress=on_progress, limits=limits)
        assert deleted == 400
        beside.finish()
        wait_until(lambda: is_folded(client, database), what="everything to be folded")
        assert given_up == []
    assert worker.metrics.registry.get_sample_value("runfold_worker_batches_rebased_total")
    assert read_projection(database) == project(new, SHARDS)


def test_the_next_event_after_a_deletion_does_not_wait_for_the_leases(
    database: psycopg.Connection,
    connection: psycopg.Connection,
    redis_url: str,
    migrated_url: str,
    given_up: list[int],
) -> None:
    """The worker keeps the shard, and folds the batch that was refused once more."""
    gone, stays = "a run", "another run"
    assert shard_of(gone, 1) == shard_of(stays, 1)
    events = [started(gone), started(stays)], [annotated(gone, 1), annotated(stays, 1)]
    with (
        connect(redis_url) as client,
        run_in_thread(Worker(WorkerSettings(redis_url, migrated_url))),
    ):
        agree_on_shards(client, SHARDS)
        for number, some in enumerate(events):
            sender = Sender(redis_url, make_frames(some), pause_s=0)
            sender.start()
            sender.join()
            wait_until(lambda: is_folded(client, database), what="all to be folded")
            if not number:
                given_up.clear()
                prepare_session(connection)
                assert delete_run(connection, gone)
        assert given_up == []
    assert read_projection(database) == project([events[0][1], events[1][1]], SHARDS)


def test_only_runs_that_were_changed_are_forgotten(
    database: psycopg.Connection, connection: psycopg.Connection
) -> None:
    """What else is remembered of the shard need not be read again."""
    metrics = Metrics()
    committer = Committer(connection, metrics=metrics)
    committer.own(range(SHARDS))
    [changed, other, third, *_] = [
        run for run in (make_run_id() for _ in range(40)) if shard_of(run, SHARDS) == 0
    ]

    def misses() -> float | None:
        return metrics.registry.get_sample_value(
            "runfold_worker_runs_recalled_total", {"result": "miss"}
        )

    committer.commit([entry(1, started(changed), started(other))])
    change(database, changed)
    committer.commit([entry(2, started(third))])  # refused at first
    before = misses() or 0
    committer.commit([entry(3, annotated(other, 1))])
    assert misses() == before
    committer.commit([entry(4, annotated(changed, 1))])
    assert misses() == before + 1
    expected = [started(changed), started(other), started(third)]
    expected += [annotated(other, 1), annotated(changed, 1)]
    assert read_projection(database) == project(expected, SHARDS)


def runs_of_shard(shard: int, number: int) -> list[str]:
    """Ids of new runs, in the order of their keys."""
    made = (make_run_id() for _ in count())
    return list(islice((run for run in made if shard_of(run, SHARDS) == shard), number))


def logged_changes(database: psycopg.Connection, shard: int) -> list[tuple[int, bytes]]:
    """(number, run key) of each change of a shard, in the order of the log."""
    rows = database.execute(
        "SELECT change_seq, runs FROM changes WHERE shard = %s ORDER BY change_seq", (shard,)
    )
    return [
        (last - len(entries) + index + 1, key)
        for last, entries in ((last, decode_entries(runs)) for last, runs in rows)
        for index, (key, _) in enumerate(entries)
    ]


def refolded(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("runfold_worker_batches_refolded_total") or 0


def test_changes_to_other_runs_do_not_refuse_a_batch(
    database: psycopg.Connection, connection: psycopg.Connection
) -> None:
    """A refused batch locks its shards, takes the next numbers, and is written."""
    metrics = Metrics()
    committed: list[Batch] = []
    committer = Committer(connection, metrics=metrics)
    committer.own(range(SHARDS))
    changed, steady = runs_of_shard(0, 2)
    [other] = runs_of_shard(1, 1)
    with Pipeline(committer, committed.append) as pipeline:
        pipeline.submit([entry(1, started(changed), started(steady)), entry(1, started(other))])
        pipeline.drain()
        for number in range(2, 12):
            change(database, changed)
            pipeline.submit([entry(number, annotated(run, number)) for run in (steady, other)])
            if number % 3 == 0:  # otherwise the next batch is folded while this one is written
                pipeline.drain()
        pipeline.drain()
    assert refolded(metrics) == 0
    expected = [started(changed), started(steady), started(other)]
    expected += [annotated(run, number) for run in (steady, other) for number in range(2, 12)]
    assert read_projection(database) == project(expected, SHARDS)
    changes = logged_changes(database, 0)
    assert [number for number, _ in changes] == list(range(1, 23))
    stored: dict[UUID, int] = dict(
        database.execute("SELECT run, change_seq FROM runs WHERE shard = 0 ORDER BY run").fetchall()
    )
    last = {UUID(bytes=key): number for number, key in changes}
    assert stored[run_key(steady)] == last[run_key(steady)]
    announced = [number for batch in committed for row, number in batch.runs if row.shard == 0]
    assert sorted(announced) == [
        number for number, key in changes if number <= 2 or key == run_key(steady).bytes
    ]


@pytest.mark.parametrize("in_flight", [True, False], ids=["by the batch before", "by itself"])
def test_a_batch_whose_run_is_deleted_meanwhile_is_folded_again(
    database: psycopg.Connection,
    connection: psycopg.Connection,
    migrated_url: str,
    monkeypatch: pytest.MonkeyPatch,
    in_flight: bool,
) -> None:
    """The deletion is found under the lock, by the batch in flight or by the batch itself."""
    reached, may_commit = threading.Event(), threading.Event()

    def wait_before_commit(point: str) -> None:
        if point == "before_deletion_commit":
            reached.set()
            assert may_commit.wait(30)

    monkeypatch.setattr(run_deletion, "crash_point", wait_before_commit)
    committer = Committer(connection)
    committer.own(range(SHARDS))
    deleted, steady = runs_of_shard(0, 2)
    with Pipeline(committer, lambda _: None) as pipeline, ThreadPoolExecutor(2) as threads:
        pipeline.submit([entry(1, started(deleted), started(steady))])
        pipeline.drain()
        change(database, steady)
        pipeline.submit([entry(2, annotated(steady, 2))])  # refused, and rebased
        pipeline.drain()
        prepare_session(database)
        deletion = threads.submit(delete_run, database, deleted)
        assert reached.wait(30)
        if in_flight:
            pipeline.submit([entry(3, annotated(steady, 3))])  # waits for the lock
        last = [entry(4, annotated(deleted, 4), annotated(steady, 4))]
        submitted = threads.submit(pipeline.submit, last)
        wait_until(lambda: committer.ahead[0].position == "4-0", what="the last batch to be folded")
        may_commit.set()
        assert deletion.result(30)
        submitted.result(30)
        pipeline.drain()
    numbers = (2, 3, 4) if in_flight else (2, 4)
    expected = [started(steady), *(annotated(steady, number) for number in numbers)]
    with connections.connect(migrated_url, autocommit=True) as reading:
        assert read_projection(reading) == project(expected, SHARDS)


def test_changes_that_the_feed_has_forgotten_cost_no_exactness(
    database: psycopg.Connection, connection: psycopg.Connection, migrated_url: str
) -> None:
    """The worker then forgets the whole shard."""
    committer = Committer(connection)
    committer.own(range(SHARDS))
    committer.commit([entry(1, started("a run"))])
    with connections.connect(migrated_url, autocommit=True) as deleting:
        prepare_session(deleting)
        assert delete_run(deleting, "a run")
    database.execute("DELETE FROM changes")
    committer.commit([entry(2, annotated("a run", 1))])
    assert read_projection(database) == project([], SHARDS)


def test_a_batch_that_was_refused_is_not_overtaken_again(
    database: psycopg.Connection, connection: psycopg.Connection, migrated_url: str
) -> None:
    """Its shards are held meanwhile: however often runs are changed, each batch comes through."""
    stop = threading.Event()

    def change_for_ever() -> None:
        with connections.connect(migrated_url, autocommit=True) as other:
            while not stop.is_set():
                change(other, "a run")

    committer = Committer(connection)
    committer.own(range(SHARDS))
    committer.commit([entry(1, started("a run"))])
    thread = threading.Thread(target=change_for_ever)
    thread.start()
    try:
        for number in range(2, 50):
            committer.commit([entry(number, annotated("a run", number))])
    finally:
        stop.set()
        thread.join()
    assert load_positions(database)[shard_of("a run", SHARDS)].position == "49-0"


def test_refused_batches_are_freed_without_cyclic_collection(
    database: psycopg.Connection, connection: psycopg.Connection
) -> None:
    """Which a worker has switched off: what a refusal held would stay for minutes."""
    committer = Committer(connection)
    committer.own(range(SHARDS))
    numbers = count(1)
    shard = shard_of("a run", SHARDS)

    def refuse(batches: int) -> None:
        for _ in range(batches):
            change(database, "a run")
            number = next(numbers)
            pipeline.submit([entry(number, annotated("a run", number))])
            pipeline.drain()

    was_enabled = gc.isenabled()
    with Pipeline(committer, lambda _: None) as pipeline:
        refuse(30)
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            refuse(200)
            grown = len(gc.get_objects()) - before
        finally:
            if was_enabled:
                gc.enable()
    assert load_positions(database)[shard].position == "230-0"
    assert grown < 200
