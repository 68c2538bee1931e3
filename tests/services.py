"""The API and a worker in threads of the test, for tests of what they do together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from runfold_api import Settings
from runfold_api.serving import bind, make_server, url_of
from runfold_workers.worker import Worker, WorkerSettings


@contextmanager
def serving(redis_url: str, database_url: str, **settings: Any) -> Iterator[httpx.Client]:
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
def working(redis_url: str, database_url: str) -> Iterator[None]:
    """A worker that folds what is posted."""
    worker = Worker(WorkerSettings(redis_url, database_url))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()
