"""What prefork workers and pools are given to do in the tests: one run a call, 8 in all.

Some of them import this in the parent, some in the child alone. `RUNFOLD_REDIS_URL` says where
runs and the broker are.
"""

import os

from celery import Celery

from runfold import Recorder

RUNS = 8
URL = os.environ["RUNFOLD_REDIS_URL"]

recorder = Recorder(URL)

app = Celery("prefork_tasks", broker=URL.replace("unix://", "redis+socket://"))
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True


def record(number: int) -> str:
    """A run with a node and a run inside it; returns the outer one's id."""
    with recorder.run("task", inputs={"number": number}) as run:
        with run.node("step"):
            pass
        with recorder.run("inner"):
            pass
    return run.id


@app.task(name="record")  # type: ignore[untyped-decorator]  # Celery has no types
def record_for_celery(number: int) -> None:
    """The same, without a result: sending that would give events time to go out."""
    record(number)
