"""The archive elsewhere than in a folder: stores that pyarrow knows, and those that fsspec does.

S3 is spoken to a server in a process of its own, moto's, which keeps objects in memory.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pyarrow import fs

from conditions import wait_until
from expired_runs import (
    EVENTS,
    EXEMPT_PROJECT_RUNS,
    OLD_NAMED_RUNS,
    OLD_RUNS,
    events_of,
    run_retention,
)
from frame_delivery import SHARDS, fold
from oracle import project
from rebuild_checks import NEVER_STOP, find_mismatches
from runfold_stack.processes.ports import choose_port
from runfold_storage.archive.store import open_archive
from runfold_storage.checkpoints.incidents import read_incidents
from runfold_storage.errors import ArchiveUnusable
from runfold_storage.history import History
from runfold_storage.jobs import add_job
from runfold_storage.postgres import connections
from runfold_storage.retention.policies import Policy, set_policy
from runfold_workers.retention.restore import KIND, restore
from table_reader import read_projection

pytestmark = pytest.mark.usefixtures("deployment")

S3 = "s3://key:hunter2@{place}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


@pytest.fixture(scope="module")
def s3_port() -> Iterator[int]:
    """Of an S3 server with a bucket called `archives`."""
    port = choose_port("127.0.0.1", 0)
    program = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _make_bucket(server, port)
            yield port
        finally:
            server.terminate()


def _make_bucket(server: subprocess.Popen[bytes], port: int) -> None:
    url = S3.format(place="archives", port=port) + "&allow_bucket_creation=true"

    def is_made() -> bool:
        assert server.poll() is None, "the S3 server has ended"
        try:
            filesystem, bucket = fs.FileSystem.from_uri(url)
            filesystem.create_dir(bucket)
        except OSError:
            return False
        return True

    wait_until(is_made, what="the S3 server to answer")


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty archive of this test's own."""
    if request.param == "file":
        return tmp_path.as_uri()
    if request.param == "memory":
        return f"memory://{tmp_path}"
    return S3.format(place=f"archives/{tmp_path.name}", port=request.getfixturevalue("s3_port"))


def test_there_and_back(
    database: psycopg.Connection, migrated_url: str, other_url: str, url: str
) -> None:
    """Archived, shown and restored; the password is in no name of it."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=50))
    gone = [*OLD_RUNS, *OLD_NAMED_RUNS, *EXEMPT_PROJECT_RUNS]
    progress = run_retention(migrated_url, url)
    assert (progress.runs, progress.archived_events) == (len(gone), 4 * len(gone))
    assert run_retention(migrated_url, url).archived_events == 0
    with History(migrated_url, archive_url=url) as history:
        for run in (OLD_RUNS[0], OLD_NAMED_RUNS[0]):
            detail = history.run(run[0]["run"])
            assert detail is not None
            assert (detail.source, detail.payloads) == ("archive", "archived")
        assert history.run("no such run") is None
    with connections.connect(other_url, autocommit=True) as other:
        archive = open_archive(url)
        assert "hunter2" not in archive.shown
        restore(other, add_job(other, KIND, {}), NEVER_STOP, archive)
        assert read_projection(other) == project(events_of(gone), SHARDS)
        assert find_mismatches(other) == []


def test_a_store_that_is_away(
    database: psycopg.Connection, migrated_url: str, s3_port: int
) -> None:
    """Without a bucket nothing is deleted, an incident is raised, and no password is shown."""
    fold(migrated_url, EVENTS)
    set_policy(database, Policy(None, payload_days=30, run_days=50))
    before = read_projection(database)
    with pytest.raises(ArchiveUnusable, match="s3://nowhere/at/all") as refused:
        run_retention(migrated_url, S3.format(place="nowhere/at/all", port=s3_port))
    assert "hunter2" not in str(refused.value)
    assert read_projection(database) == before
    assert [each.kind for each in read_incidents(database.execute)] == ["archive_failed"]
