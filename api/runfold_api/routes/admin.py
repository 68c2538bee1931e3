"""The routes that delete, and those that show work that takes long."""

from typing import Annotated, Any, Final
from uuid import UUID

from litestar import HttpMethod, Response, delete, route
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from runfold_api.web.problems import JobUnknown, RunUnknown, described
from runfold_api.web.run_paths import decode_run
from runfold_storage.admin import MAX_DAYS, MAX_JOBS, Admin, Deleted
from runfold_storage.jobs import Job

_READING: Final[dict[str, Any]] = {
    "http_method": [HttpMethod.GET, HttpMethod.HEAD],
    "sync_to_thread": True,
}

OlderThanDays = Annotated[
    int | None,
    QueryParameter(
        description="Only runs that ended so many days ago; without an end their last sign of life"
        " counts.",
        ge=1,
        le=MAX_DAYS,
    ),
]
All = Annotated[
    bool, QueryParameter(description="Every run; has to be said where no filter is given.")
]
JobStatus = Annotated[str | None, QueryParameter(description="Only jobs with this status.")]
JobLimit = Annotated[int, QueryParameter(description="How many at most.", ge=1, le=MAX_JOBS)]


class JobList(Struct, frozen=True):
    """Work that takes long, the newest first."""

    jobs: list[Job]


@delete("/runs/{run:str}", status_code=204, responses=described(404, 503), sync_to_thread=True)
def delete_run(upkeep: NamedDependency[Admin], run: FromPath[str]) -> None:
    """Delete one run with its events and figures; late events do not revive it."""
    run = decode_run(run)
    if not upkeep.delete_run(run):
        raise RunUnknown(run)


@delete(
    "/runs",
    status_code=200,
    responses={
        200: ResponseSpec(Deleted, generate_examples=False, description="They are gone."),
        202: ResponseSpec(
            Job, generate_examples=False, description="There are many: a job deletes them."
        ),
        **described(400, 503),
    },
    sync_to_thread=True,
)
def delete_runs(
    upkeep: NamedDependency[Admin],
    filters: NamedDependency[dict[str, Any]],
    older_than_days: OlderThanDays = None,
    all: All = False,  # noqa: A002, the contract's word
) -> Response[Deleted | Job]:
    """Delete the runs of these filters; `GET /runs` with the same ones lists them."""
    done = upkeep.delete_runs(older_than_days=older_than_days, everything=all, **filters)
    if isinstance(done, Deleted):
        return Response(done, status_code=200)
    return Response(done, status_code=202, headers={"location": f"/api/v1/jobs/{done.id}"})


@route("/jobs", responses=described(400, 503), **_READING)
def list_jobs(
    upkeep: NamedDependency[Admin], status: JobStatus = None, limit: JobLimit = 50
) -> JobList:
    """Work that takes long: deletions, rebuilds, retention."""
    return JobList(upkeep.jobs(limit=limit, status=status))


@route("/jobs/{job:str}", responses=described(404, 503), **_READING)
def get_job(upkeep: NamedDependency[Admin], job: FromPath[str]) -> Job:
    """One job: how far it has come, and how it ended."""
    try:
        found = upkeep.job(UUID(job))
    except ValueError:
        found = None
    if found is None:
        raise JobUnknown(job)
    return found


ROUTES: Final = [delete_run, delete_runs, list_jobs, get_job]
