"""The routes that read runs, events, statistics, failures and workflows."""

from itertools import chain
from typing import Any, Final

from litestar import HttpMethod, get, route
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from runfold_api.web import query_params
from runfold_api.web.problems import described, run_unknown
from runfold_api.web.run_paths import decode_run
from runfold_storage.history import History
from runfold_storage.parameters import parse_time
from runfold_storage.queries.run.detail import RunDetail
from runfold_storage.queries.run.events import EventPage
from runfold_storage.queries.runs.export_formats import FORMATS
from runfold_storage.queries.stats.failures import Failures
from runfold_storage.queries.stats.report import Stats
from runfold_storage.queries.stats.workflows import WorkflowPage
from runfold_storage.read_models.summaries import RunPage

METHODS: Final = [HttpMethod.GET, HttpMethod.HEAD]
READING: Final[dict[str, Any]] = {"http_method": METHODS, "sync_to_thread": True}


@route("/runs", responses=described(400, 503), **READING)
def list_runs(
    history: NamedDependency[History],
    filters: NamedDependency[dict[str, Any]],
    limit: query_params.Limit = 50,
    cursor: query_params.Cursor = None,
    offset: query_params.Offset = 0,
) -> RunPage:
    """List runs, newest first, without payloads."""
    return history.runs(**filters, limit=limit, cursor=cursor, offset=offset)


@get("/export", responses=described(400, 503), sync_to_thread=True)
def export_runs(
    history: NamedDependency[History],
    filters: NamedDependency[dict[str, Any]],
    format: query_params.ExportFormat,  # noqa: A002, the contract's word
    nodes: query_params.WithNodes = False,
) -> Stream:
    """Export all matching runs as CSV, NDJSON or Parquet, streamed as it is read."""
    pieces = history.export(format, nodes=nodes, **filters)
    first = next(pieces, b"")  # report errors as problems before the response starts
    return Stream(
        chain([first], pieces),
        media_type=FORMATS[format][0],
        headers={"content-disposition": f'attachment; filename="runs.{format}"'},
    )


@route("/runs/{run:str}", responses=described(400, 404, 503), **READING)
def get_run(history: NamedDependency[History], run: FromPath[str]) -> RunDetail:
    """Return a run with its nodes, payloads, error and trigger."""
    run = decode_run(run)
    found = history.run(run)
    if found is None:
        raise run_unknown(run)
    return found


@route("/runs/{run:str}/events", responses=described(400, 404, 503), **READING)
def list_events(
    history: NamedDependency[History],
    run: FromPath[str],
    types: query_params.Types = None,
    node: query_params.Node = None,
    limit: query_params.EventLimit = 200,
    after: query_params.After = None,
    before: query_params.Before = None,
    tail: query_params.Tail = False,
) -> EventPage:
    """List a run's events as the ledger has them, by time and id."""
    run = decode_run(run)
    found = history.events(
        run,
        types=query_params.split_words(types),
        node=node,
        after=after,
        before=before,
        tail=tail,
        limit=limit,
    )
    if found is None:
        raise run_unknown(run)
    return found


@route("/stats", responses=described(400, 503), **READING)
def get_stats(
    history: NamedDependency[History],
    project: query_params.Project = None,
    workflow: query_params.Workflow = None,
    since: query_params.Since = None,
    until: query_params.Until = None,
    bucket: query_params.Bucket = None,
    group_by: query_params.GroupBy = None,
    tz: query_params.Zone = None,
) -> Stats:
    """Return counts, durations, percentiles and usage from the rollups."""
    return history.stats(
        project=project,
        workflow=workflow,
        since=parse_time("since", since),
        until=parse_time("until", until),
        bucket=bucket,
        group_by=group_by,
        tz=tz,
    )


@route("/failures", responses=described(400, 503), **READING)
def list_failures(
    history: NamedDependency[History],
    project: query_params.Project = None,
    workflow: query_params.Workflow = None,
    since: query_params.EndedSince = None,
    until: query_params.EndedUntil = None,
    limit: query_params.Limit = 50,
) -> Failures:
    """List failed runs and node attempts, grouped by fingerprint, most frequent first."""
    return history.failures(
        project=project,
        workflow=workflow,
        since=parse_time("since", since),
        until=parse_time("until", until),
        limit=limit,
    )


@route("/workflows", responses=described(400, 503), **READING)
def list_workflows(
    history: NamedDependency[History],
    project: query_params.Project = None,
    limit: query_params.Limit = 200,
    cursor: query_params.After = None,
) -> WorkflowPage:
    """List workflows with the statistics of their runs."""
    return history.workflows(project=project, limit=limit, cursor=cursor)


ROUTES = [list_runs, export_runs, get_run, list_events, get_stats, list_failures, list_workflows]
