"""A child that is one worker for jobs."""

import logging

from benchmarks.children import arguments, run_worker
from runfold_workers.jobs.worker import JobWorker, JobWorkerSettings


def main() -> None:
    """In the child."""
    given = arguments()
    logging.basicConfig(level=logging.WARNING)
    worker = JobWorker(JobWorkerSettings(given["redis_url"], given["database_url"]))
    run_worker(worker)


if __name__ == "__main__":
    main()
