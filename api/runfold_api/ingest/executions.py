"""Converts a whole execution, posted in one request, to the events that it would have sent.

One that has not ended has its nodes as planned nodes; posted again with its id, it continues.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from msgspec import Meta, Struct

from runfold.errors import BrokenEvent
from runfold.protocol.codec import Envelope, explain, replace_unstorable
from runfold.protocol.events import (
    Attempt,
    Error,
    ExitCode,
    Milliseconds,
    Name,
    NodeEnd,
    Queued,
    RunId,
    Tags,
    Usage,
)
from runfold.protocol.ids import make_run_id
from runfold.recording.event_writer import normalize_time
from runfold.recording.finished_execution import (
    ExecutionFields,
    events_of,
    number_events,
    read_time,
)
from runfold.recording.run_start import RunFields, make_started
from runfold.serialization.event_cleanup import BufferedEvent, encode_bounded
from runfold.serialization.intake import Intake
from runfold.serialization.normalize import normalize_run_id
from runfold.serialization.redaction import Redactor
from runfold_api.web.problems import RequestRefused

Time = Annotated[datetime, Meta(tz=True)]
Status = Literal["queued", "pending", "running", "completed", "failed", "cancelled"]


class ExecutionNode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node; missing times default to the times of the execution."""

    node: Name
    name: Name | None = None
    node_type: Name | None = None
    attempt: Attempt = 1
    parents: list[Name] | None = None
    status: NodeEnd | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    duration_ms: Milliseconds | None = None
    inputs: Any = None
    outputs: Any = None
    error: Error | str | None = None
    usage: Usage | None = None


class Execution(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An execution. Without `status` it failed if it has an `error` or a non-zero exit code.

    Without `id` each request creates a new run. `save: false` records nothing.
    """

    workflow: Name
    id: RunId | None = None
    project: Name | None = None
    trigger: str | dict[str, Any] | None = None
    user: Name | None = None
    session: Name | None = None
    tags: Tags | None = None
    metadata: Any = None
    parent_run: RunId | None = None
    attempt: Attempt | None = None
    status: Status | None = None
    queued_at: Time | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    duration_ms: Milliseconds | None = None
    inputs: Any = None
    outputs: Any = None
    error: Error | str | None = None
    reason: str | None = None
    exit_code: ExitCode | None = None
    usage: Usage | None = None
    stdout: str | None = None
    stderr: str | None = None
    nodes: list[ExecutionNode] = []
    save: bool = True


_DECODER: Final = msgspec.json.Decoder(Execution)
_OPEN: Final = ("queued", "pending", "running")


def read_execution(body: bytes, intake: Intake) -> tuple[str, list[Envelope]]:
    """Return the run's id and its events (none with `save: false`); raise `RequestRefused`."""
    try:
        execution = _DECODER.decode(replace_unstorable(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(400, "bad-execution", explain(error)) from error
    redactor, latest_us = intake.redactor, intake.latest_us()
    try:
        if execution.status in _OPEN:
            run, items = _open_events(execution, redactor, latest_us)
        else:
            fields = cast("ExecutionFields", msgspec.structs.asdict(execution))
            start = execution.started_at
            run, items = events_of(redactor, execution.workflow, start, fields, latest_us)
        return run, [encode_bounded(item, redactor) for item in items if execution.save]
    except BrokenEvent as error:
        raise RequestRefused(400, "bad-execution", str(error)) from error


def _open_events(
    execution: Execution, redactor: Redactor, latest_us: int
) -> tuple[str, list[BufferedEvent]]:
    """Return the start of a run, with its nodes as planned nodes."""
    fields = cast("RunFields", msgspec.structs.asdict(execution))
    plan = [msgspec.structs.asdict(node) for node in execution.nodes]
    begun = make_started(redactor, execution.workflow, fields, plan)
    started_us = read_time("started_at", execution.started_at, latest_us)
    queued_us = read_time("queued_at", execution.queued_at, latest_us)
    run = execution.id or make_run_id(started_us if queued_us is None else queued_us)
    now_us = normalize_time(datetime.now().astimezone()) or 0
    queued = Queued(**msgspec.structs.asdict(begun))
    if execution.status != "running":
        events = [(queued, queued_us or started_us or now_us)]
    else:
        events = [] if queued_us is None else [(queued, queued_us)]
        events.append((begun, started_us or now_us))  # type: ignore[arg-type]  # another event
    return normalize_run_id(run), number_events(run, events, is_new=not execution.id)
