"""The job that deletes many runs, page after page.

Dies halfway: what was deleted stays so, and its progress says where to go on. `deleted` may then
miss a page that was deleted and not noted.
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
    """How far a deletion has come; kept in `jobs`."""

    deleted: int = 0
    after: tuple[datetime, UUID] | None = None


def delete(connection: psycopg.Connection, job_id: UUID, stop: threading.Event) -> None:
    """Do a job of this kind, from where it was left; raises `JobInterrupted` and `JobLocked`."""
    prepare_session(connection)
    with resume_job(connection, job_id, DELETE, Progress) as (job, progress):
        arguments = msgspec.convert(job.arguments, DeleteArguments)

        def told(n: int, after: ListKey | None) -> None:
            progress.deleted += n
            progress.after = after
            save_progress(connection, job_id, progress)
            crash_point("after_page_deleted")

        delete_runs(
            connection,
            arguments.deletion,
            up_to=arguments.up_to,
            after=progress.after,
            told=told,
            stop=stop,
        )
        finish_job(connection, job_id, {"deleted": progress.deleted})
