"""The job that deletes many runs, step by step.

After a crash its progress says where to resume. Deleted runs stay deleted; `deleted` may miss the
step whose progress was not saved.
"""

import threading
from datetime import datetime
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct

from runfold.crash_points import crash_point
from runfold_storage.admin import DELETE, DeleteArguments
from runfold_storage.jobs import finish_job, resume_job, save_progress
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.retention.run_deletion import ListKey, delete_runs


class Progress(Struct):
    """The progress of a deletion, stored in `jobs`."""

    deleted: int = 0
    after: tuple[datetime, UUID] | None = None


def delete(connection: psycopg.Connection, job_id: UUID, stop: threading.Event) -> None:
    """Do or resume a job of this kind; raise `JobInterrupted` or `JobLocked`."""
    prepare_session(connection)
    with resume_job(connection, job_id, DELETE, Progress) as (job, progress):
        arguments = msgspec.convert(job.arguments, DeleteArguments)

        def save(n: int, after: ListKey | None) -> None:
            progress.deleted += n
            progress.after = after
            save_progress(connection, job_id, progress)
            crash_point("after_page_deleted")

        delete_runs(
            connection,
            arguments.deletion,
            up_to=arguments.up_to,
            after=progress.after,
            on_progress=save,
            stop=stop,
        )
        finish_job(connection, job_id, {"deleted": progress.deleted})
