"""`rq_program.py early|late`: queues the tasks, and does them in work horses of RQ.

`early`: the worker has imported them before it forks; `late`: each work horse does.
"""

import os
import sys

import redis
from rq import Queue, Worker

RUNS = 8

if __name__ == "__main__":
    if sys.argv[1] == "early":
        import acceptance.prefork_tasks  # noqa: F401
    client = redis.Redis.from_url(os.environ["RUNFOLD_REDIS_URL"])
    queue = Queue(connection=client)
    jobs = [queue.enqueue("acceptance.prefork_tasks.record", number) for number in range(RUNS)]
    Worker([queue], connection=client).work(burst=True)
    assert [job.get_status() for job in jobs] == ["finished"] * RUNS
