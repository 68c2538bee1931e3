"""Work in the background: what the table says is done, whatever becomes of the queue."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from rq import Callback, Queue
from rq.job import Job as QueuedJob
from rq.serializers import JSONSerializer, PickleSerializer

from conditions import wait_until
from event_histories import NOON_US
from frame_delivery import SHARDS, fold
from oracle import project
from runfold.protocol.streams import connect, stream_key
from runfold_storage import jobs
from runfold_storage.admin import Admin
from runfold_storage.jobs import Job, add_job, lock_job, read_job, unclaimed_jobs
from runfold_storage.postgres import connections
from runfold_workers.integrity.selection import Selection
from runfold_workers.jobs.queue import NAME, JobDispatcher, connect_queue, make_queue, put
from service_threads import run_job_worker
from table_reader import read_projection

pytestmark = pytest.mark.usefixtures("deployment")

EVERYTHING = Selection(shards=SHARDS).as_arguments()


@pytest.fixture
def queue(redis_url: str) -> Iterator[Queue]:
    with connect_queue(redis_url, None) as client:
        yield make_queue(client)


def fill(url: str, runs: int) -> None:
    """So many runs, as a worker folds them."""
    fold(
        url,
        [
            {"type": "started", "run": f"r{n}", "id": 0, "at_us": NOON_US + n, "workflow": "w"}
            for n in range(runs)
        ],
    )


def ended(database: psycopg.Connection, job_id: UUID) -> Job:
    """The job, once it has come to an end."""

    def has_ended() -> bool:
        job = read_job(database, job_id)
        return job is not None and job.status not in jobs.UNFINISHED

    wait_until(has_ended, what="the job to end")
    job = read_job(database, job_id)
    assert job is not None
    return job


def test_a_large_deletion_is_done_in_the_background(
    redis_url: str, migrated_url: str, database: psycopg.Connection
) -> None:
    """With progress, a result, and nothing left of what was meant."""
    fill(migrated_url, 30)
    job = Admin(migrated_url, at_once=5).delete_runs(workflow="w")
    assert isinstance(job, Job)
    with run_job_worker(redis_url, migrated_url):
        done = ended(database, job.id)
    assert (done.status, done.result, done.error) == ("completed", {"deleted": 30}, None)
    assert done.progress is not None
    assert done.progress["deleted"] == 30
    assert read_projection(database) == project([], SHARDS)


def test_a_queue_that_was_lost_is_filled_again(
    redis_url: str, migrated_url: str, database: psycopg.Connection, queue: Queue
) -> None:
    """What is in the table is brought there once more."""
    ids = [add_job(database, "rebuild", EVERYTHING, background=True) for _ in range(3)]
    with connections.connect(migrated_url, autocommit=True) as connection:
        JobDispatcher(connection, queue).turn()
        assert queue.job_ids == [str(job_id) for job_id in ids]
        queue.connection.flushdb()
        with run_job_worker(
            redis_url, migrated_url
        ):  # has no chair: the first one would have to do it
            handing_out = JobDispatcher(connection, queue)
            handing_out.turn()
            for job_id in ids:
                assert ended(database, job_id).status == "completed"


def test_one_process_hands_out(
    migrated_url: str, database: psycopg.Connection, queue: Queue
) -> None:
    """The next one when its connection is gone; what waits in the queue is not brought again."""
    job_id = add_job(database, "rebuild", EVERYTHING, background=True)
    first = connections.connect(migrated_url, autocommit=True)
    with connections.connect(migrated_url, autocommit=True) as second:
        JobDispatcher(first, queue).turn()
        queue.empty()  # type: ignore[no-untyped-call]  # RQ does not annotate it
        handing_out = JobDispatcher(second, queue)
        handing_out.turn()
        assert queue.job_ids == []
        first.close()

        def is_brought() -> bool:
            handing_out.turn()
            return queue.job_ids == [str(job_id)]

        wait_until(is_brought, what="the second to take over")
        handing_out.turn()
        JobDispatcher(second, queue).turn()
        assert queue.job_ids == [str(job_id)]


def test_work_that_someone_is_at_is_not_handed_out(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """Until its connection is gone, for then nobody is."""
    job_id = add_job(database, "rebuild", EVERYTHING, background=True)
    attended = add_job(database, "rebuild", EVERYTHING)
    assert unclaimed_jobs(database) == [job_id]
    with connections.connect(migrated_url, autocommit=True) as other, lock_job(other, job_id):
        jobs.start_job(other, job_id)
        assert unclaimed_jobs(database) == []
    assert unclaimed_jobs(database) == [job_id]
    assert attended not in unclaimed_jobs(database)


def test_what_is_interrupted_goes_on(
    redis_url: str, migrated_url: str, database: psycopg.Connection
) -> None:
    """The worker stops after the step at hand; the next one does the rest."""
    runs = 1_000
    fill(migrated_url, runs)
    job = Admin(migrated_url, at_once=1).delete_runs(workflow="w")
    assert isinstance(job, Job)

    def has_begun() -> bool:
        found = read_job(database, job.id)
        return found is not None and found.progress is not None

    with run_job_worker(redis_url, migrated_url):
        wait_until(has_begun, what="the first step")
    left = read_job(database, job.id)
    assert left is not None
    assert left.status == "queued"
    assert left.progress is not None
    assert 0 < left.progress["deleted"] < runs
    with run_job_worker(redis_url, migrated_url):
        assert ended(database, job.id).result == {"deleted": runs}
    assert read_projection(database) == project([], SHARDS)


def test_jobs_of_unknown_kinds_fail(
    redis_url: str, migrated_url: str, database: psycopg.Connection
) -> None:
    """And says so; so does work whose arguments make no sense."""
    unknown = add_job(database, "os.system", {"command": "true"}, background=True)
    broken = add_job(database, "delete", {"deletion": 7}, background=True)
    with run_job_worker(redis_url, migrated_url):
        assert "os.system" in str(ended(database, unknown).error)
        assert ended(database, broken).status == "failed"
        assert "deletion" in str(ended(database, broken).error)


def test_nothing_else_is_ever_called(
    redis_url: str, migrated_url: str, database: psycopg.Connection, queue: Queue, tmp_path: Path
) -> None:
    """Whoever can write to the queue can have no other code run, by whichever way RQ offers."""
    client = queue.connection
    plain = Queue(NAME, connection=client, serializer=JSONSerializer)
    made = [str(tmp_path / f"made {n}") for n in range(8)]
    plain.enqueue_call("os.mkdir", args=(made[0],))
    plain.enqueue_call("runfold:do_job", args=("no id",), on_failure=Callback("posix.mkdir"))
    ours, on_success = uuid4(), Callback("runfold_hostile.run")
    plain.enqueue_call("runfold:do_job", args=(str(ours),), on_success=on_success)
    pickled = Queue(NAME, connection=client, serializer=PickleSerializer)
    pickled.enqueue_call("os.mkdir", args=(made[2],))
    by_instance = QueuedJob.create(
        "rmdir", args=(made[3],), connection=client, serializer=JSONSerializer
    )
    by_instance._instance = {"a": "dictionary"}
    plain.enqueue_job(by_instance)
    client.rpush(plain.key, "nothing", b"\xff\xfe", "x" * 100_000)
    client.hset("rq:job:odd", mapping={"data": b"\x00", "created_at": "never"})
    client.rpush(plain.key, "odd")
    good = add_job(database, "rebuild", EVERYTHING, background=True)

    with run_job_worker(redis_url, migrated_url):
        assert ended(database, good).status == "completed"
        wait_until(lambda: not client.llen(plain.key), what="the rest of the queue")
    assert list(tmp_path.iterdir()) == []


def test_the_queue_is_apart_from_the_streams(redis_url: str, queue: Queue) -> None:
    """In a database of its own, so that neither sees the other's keys."""
    with connect(redis_url) as streams:
        streams.xadd(stream_key(0), {"events": b"[]"})
        put(queue, uuid4())
        assert streams.keys("rq:*") == []
        assert queue.connection.keys("runfold:*") == []
