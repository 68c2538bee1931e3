"""A child that is one worker for jobs."""

import logging
import threading

from benchmarks.children import arguments, await_end, await_go
from runfold_workers.jobs.worker import JobWorker, JobWorkerSettings


def main() -> None:
    """In the child."""
    given = arguments()
    logging.basicConfig(level=logging.WARNING)
    worker = JobWorker(JobWorkerSettings(given["redis_url"], given["database_url"]))
    await_go()

    def stop_with_parent() -> None:
        await_end()
        worker.stop()

    threading.Thread(target=stop_with_parent, daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main()
