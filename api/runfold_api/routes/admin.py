"""The routes that delete runs and list background jobs."""

from typing import Annotated, Any, Final
from uuid import UUID

from litestar import Response, delete, route
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath
from litestar.params import QueryParameter as Query
from msgspec import Struct

from runfold_api.web.problems import RequestRefused, described, run_unknown
from runfold_api.web.run_paths import decode_run
from runfold_storage.admin import MAX_DAYS, MAX_JOBS, Admin, Deleted
from runfold_storage.jobs import Job

from .history import READING

OlderThanDays = Annotated[
    int | None,
    Query(
        description="Only runs that ended at least this many days ago; the last event counts for "
        "runs that have not ended.",
        ge=1,
        le=MAX_DAYS,
    ),
]
All = Annotated[bool, Query(description="All runs; required if there is no filter.")]
JobStatus = Annotated[str | None, Query(description="Only jobs with this status.")]
JobLimit = Annotated[int, Query(description="How many at most.", ge=1, le=MAX_JOBS)]


class JobList(Struct, frozen=True):
    """Background jobs, newest first."""

    jobs: list[Job]


@delete("/runs/{run:str}", status_code=204, responses=described(404, 503), sync_to_thread=True)
def delete_run(administration: NamedDependency[Admin], run: FromPath[str]) -> None:
    """Delete a run with its events and statistics; late events do not recreate it."""
    run = decode_run(run)
    if not administration.delete_run(run):
        raise run_unknown(run)


@delete(
    "/runs",
    status_code=200,
    responses={
        200: ResponseSpec(Deleted, generate_examples=False, description="The runs are deleted."),
        202: ResponseSpec(Job, generate_examples=False, description="A job deletes the runs."),
        **described(400, 503),
    },
    sync_to_thread=True,
)
def delete_runs(
    administration: NamedDependency[Admin],
    filters: NamedDependency[dict[str, Any]],
    older_than_days: OlderThanDays = None,
    all: All = False,  # noqa: A002, the contract's word
) -> Response[Deleted | Job]:
    """Delete all runs that match; `GET /runs` lists them for the same filters."""
    done = administration.delete_runs(older_than_days=older_than_days, everything=all, **filters)
    if isinstance(done, Deleted):
        return Response(done, status_code=200)
    return Response(done, status_code=202, headers={"location": f"/api/v1/jobs/{done.id}"})


@route("/jobs", responses=described(400, 503), **READING)
def list_jobs(
    administration: NamedDependency[Admin], status: JobStatus = None, limit: JobLimit = 50
) -> JobList:
    """List background jobs: deletions, rebuilds, retention."""
    return JobList(administration.jobs(limit=limit, status=status))


@route("/jobs/{job:str}", responses=described(404, 503), **READING)
def get_job(administration: NamedDependency[Admin], job: FromPath[str]) -> Job:
    """Return a job with its progress and result."""
    try:
        found = administration.job(UUID(job))
    except ValueError:
        found = None
    if found is None:
        detail = f"there is no job {job[:100]!r}: /api/v1/jobs lists them"
        raise RequestRefused(404, "job-unknown", detail)
    return found


ROUTES: Final = [delete_run, delete_runs, list_jobs, get_job]
