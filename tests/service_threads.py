"""The API and workers in threads of the test, for tests of what they do together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from conditions import run_in_thread, wait_until
from runfold_api import Settings
from runfold_api.server import bind, make_server, url_of
from runfold_workers.consumer.worker import Worker, WorkerSettings
from runfold_workers.jobs.worker import JobWorker, JobWorkerSettings


@contextmanager
def run_api(redis_url: str, database_url: str, **settings: Any) -> Iterator[httpx.Client]:
    """A server on a free port, and a client that talks to it."""
    server = make_server(Settings(redis_url=redis_url, database_url=database_url, **settings))
    with bind(port=0) as listener:
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with httpx.Client(base_url=url_of(listener), timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def run_worker(redis_url: str, database_url: str) -> Iterator[None]:
    """A worker that folds what is posted."""
    with run_in_thread(Worker(WorkerSettings(redis_url, database_url))):
        yield


@contextmanager
def run_job_worker(redis_url: str, database_url: str) -> Iterator[None]:
    """A worker for jobs; leaving stops it after the step at hand."""
    with run_in_thread(JobWorker(JobWorkerSettings(redis_url, database_url))):
        yield


@contextmanager
def run_api_and_worker(redis_url: str, database_url: str) -> Iterator[httpx.Client]:
    """Both, as soon as the deployment has its shards."""
    with run_api(redis_url, database_url) as client, run_worker(redis_url, database_url):
        wait_until(
            lambda: client.get("/api/v1/runs").json()["watermark"]["position"], what="shards"
        )
        yield client
