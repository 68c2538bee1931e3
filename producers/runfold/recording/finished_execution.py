"""Convert an execution that is over to the events that it would have sent.

The same execution under the same id gives the same event ids, so a retried import changes nothing.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from runfold.errors import BrokenEvent
from runfold.protocol.codec import encode_body
from runfold.protocol.events import (
    Annotated,
    Cancelled,
    Completed,
    Event,
    Failed,
    NodeEnd,
    NodeFinished,
    NodeStarted,
    PlannedNode,
    Queued,
    Usage,
)
from runfold.protocol.ids import derive_event_id, make_event_id, make_run_id
from runfold.protocol.time_limits import check_time
from runfold.serialization.event_cleanup import BufferedEvent
from runfold.serialization.exceptions import ErrorLike, describe
from runfold.serialization.normalize import (
    normalize_count,
    normalize_name,
    normalize_names,
    normalize_number,
    normalize_run_id,
)
from runfold.serialization.payloads import encode_payload
from runfold.serialization.redaction import Redactor

from .event_writer import EVENT_OVERHEAD, log_events, normalize_time, read_usage
from .run_start import RunFields, make_started

RecordedEnd = Literal["completed", "failed", "cancelled"]


class RecordedNode(Struct, frozen=True, kw_only=True):
    """A node of an execution that is over; missing times default to those of the run."""

    node: str
    name: str | None = None
    node_type: str | None = None
    attempt: int = 1
    parents: Sequence[str] | None = None
    status: NodeEnd | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: float | None = None
    inputs: Any = None
    outputs: Any = None
    error: Any = None
    usage: Usage | Mapping[str, Any] | None = None


class ExecutionFields(RunFields, total=False):
    """The arguments of `Recorder.record` that describe the execution, besides its start."""

    finished_at: datetime | None
    duration_ms: float | None
    id: str | None
    queued_at: datetime | None
    status: RecordedEnd | None
    outputs: object
    error: ErrorLike | None
    exit_code: int | None
    reason: str | None
    usage: Usage | Mapping[str, Any] | None
    stdout: str | None
    stderr: str | None
    nodes: Sequence[RecordedNode | Mapping[str, Any]]


TimedEvent = tuple[Event, int]


def events_of(
    redactor: Redactor,
    workflow: str,
    started_at: datetime | None,
    fields: ExecutionFields,
    latest_us: int,
) -> tuple[str, list[BufferedEvent]]:
    """Return the id of the run and its events, ready for the emitter.

    Raises `BrokenEvent`, naming the field, for a time before the year 2000 or after `latest_us`,
    even if that time was computed from `duration_ms`.
    """
    times = (started_at, fields.get("finished_at"), fields.get("duration_ms"))
    started_us, finished_us, duration_ms = _read_span(*times, latest_us)
    started = make_started(redactor, workflow, fields)
    queued_us = read_time("queued_at", fields.get("queued_at"), latest_us)
    nodes = [_normalize_node(node) for node in fields.get("nodes") or ()]
    skipped = [
        PlannedNode(
            node=one.node, name=one.name, node_type=one.node_type, parents=list(one.parents or ())
        )
        for one in nodes
        if one.status == "skipped"
    ]
    if skipped:
        started = msgspec.structs.replace(started, nodes=[*(started.nodes or []), *skipped])
    events: list[TimedEvent] = []
    if queued_us is not None:
        events.append((Queued(workflow=started.workflow, project=started.project), queued_us))
    events.append((started, started_us))
    for position, node in enumerate(nodes):
        try:
            events += _node_events(node, (started_us, finished_us), redactor, latest_us)
        except BrokenEvent as error:
            raise BrokenEvent(f"nodes[{position}].{error}") from error
    last: list[Event] = []
    for stream, text in (("stdout", fields.get("stdout")), ("stderr", fields.get("stderr"))):
        last += log_events(text or "", None, stream, None, redactor)
    last += _end_events(fields, duration_ms, redactor)
    events += ((event, finished_us) for event in last)
    own_id = fields.get("id")
    run = normalize_run_id(own_id) if own_id else make_run_id(started_us)
    return run, number_events(run, events, is_new=not own_id)


def number_events(run: str, events: Sequence[TimedEvent], *, is_new: bool) -> list[BufferedEvent]:
    """Number events for the emitter: as emitter 0 for a new run, else as a hash of the events."""
    bodies = [encode_body(event) for event, _ in events]
    emitter = 0
    if not is_new:
        times = [str(at_us).encode() for _, at_us in events]
        emitter = (derive_event_id(b"\n".join(bodies + times)) >> 32) or 1
    return [
        (event, run, make_event_id(emitter, number), at_us, EVENT_OVERHEAD + len(body), True)
        for number, ((event, at_us), body) in enumerate(zip(events, bodies, strict=True))
    ]


def read_time(field: str, at: datetime | None, latest_us: int) -> int | None:
    """Return a time in microseconds since the epoch; raise `BrokenEvent` if out of bounds."""
    at_us = normalize_time(at)
    if at_us is not None:
        check_time(field, at_us, latest_us)
    return at_us


def _read_span(
    started_at: datetime | None,
    finished_at: datetime | None,
    duration: float | None,
    latest_us: int,
    default_us: tuple[int, int] | None = None,
) -> tuple[int, int, float]:
    """Return start, end and duration in milliseconds; missing ones are computed from the others.

    A time that does not follow from them is that of `default_us`, else the given one, else now.
    """
    started_us = read_time("started_at", started_at, latest_us)
    finished_us = read_time("finished_at", finished_at, latest_us)
    duration_ms = normalize_number(duration, 0, 1e14)
    length_us = None if duration_ms is None else int(duration_ms * 1000)
    if default_us is None:
        if started_us is None and finished_us is None:
            finished_us = time.time_ns() // 1000
        default_us = (finished_us or 0, started_us or 0)
    if started_us is None:
        has_both = finished_us is not None and length_us is not None
        started_us = finished_us - length_us if has_both else default_us[0]  # type: ignore[operator]  # has_both
    if finished_us is None:
        finished_us = default_us[1] if length_us is None else started_us + length_us
    check_time("duration_ms: the computed start", started_us, latest_us)
    check_time("duration_ms: the computed end", finished_us, latest_us)
    finished_us = max(started_us, finished_us)
    if duration_ms is None:
        duration_ms = (finished_us - started_us) / 1000
    return started_us, finished_us, duration_ms


def _node_events(
    node: RecordedNode, run_span_us: tuple[int, int], redactor: Redactor, latest_us: int
) -> list[TimedEvent]:
    times = (node.started_at, node.finished_at, node.duration_ms)
    began_us, ended_us, duration_ms = _read_span(*times, latest_us, run_span_us)
    status: NodeEnd = node.status or ("completed" if node.error is None else "failed")
    finished = NodeFinished(
        node=node.node,
        attempt=node.attempt,
        status=status,
        outputs=encode_payload(node.outputs, redactor),
        error=None if node.error is None else describe(node.error, redactor),
        usage=read_usage(node.usage),
        duration_ms=duration_ms,
    )
    if status == "skipped":
        return [(msgspec.structs.replace(finished, duration_ms=None), ended_us)]
    started = NodeStarted(
        node=node.node,
        name=node.name,
        node_type=node.node_type,
        attempt=node.attempt,
        parents=None if node.parents is None else list(node.parents),
        inputs=encode_payload(node.inputs, redactor),
    )
    return [(started, began_us), (finished, ended_us)]


def _end_events(fields: ExecutionFields, duration_ms: float, redactor: Redactor) -> list[Event]:
    exit_code = normalize_count(fields.get("exit_code"), -(2**31), 2**31 - 1)
    given = fields.get("error")
    error = None if given is None else describe(given, redactor)
    outputs = encode_payload(fields.get("outputs"), redactor)
    usage = read_usage(fields.get("usage"))
    status = fields.get("status") or ("failed" if error is not None or exit_code else "completed")
    if status == "cancelled":
        reason = fields.get("reason") or (error.message if error is not None else None)
        message = describe({"message": reason or ""}, redactor).message
        end = Cancelled(reason=message or None, duration_ms=duration_ms)
        return [end] if usage is None else [Annotated(usage=usage), end]
    if status == "failed" and error is None and exit_code:
        error = describe({"type": "ExitCode", "message": f"exit code {exit_code}"}, redactor)
    return [
        msgspec.structs.replace(
            Failed(error=error) if status == "failed" else Completed(),
            outputs=outputs,
            exit_code=exit_code,
            usage=usage,
            duration_ms=duration_ms,
        )
    ]


def _normalize_node(node: RecordedNode | Mapping[str, Any]) -> RecordedNode:
    fields = msgspec.structs.asdict(node) if isinstance(node, Struct) else dict(node)
    known = {name: fields[name] for name in RecordedNode.__struct_fields__ if name in fields}
    status = known.get("status")
    return RecordedNode(
        **known
        | {
            "node": normalize_name(known.get("node")) or "node",
            "name": normalize_name(known.get("name")),
            "node_type": normalize_name(known.get("node_type")),
            "attempt": normalize_count(known.get("attempt", 1), 1, 32_767) or 1,
            "parents": normalize_names(known.get("parents")),
            "status": status if status in ("completed", "failed", "skipped", "cancelled") else None,
        }
    )
