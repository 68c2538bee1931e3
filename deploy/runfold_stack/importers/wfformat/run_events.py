"""The events of one imported execution, in the order of time.

They are deterministic: the run's id is derived from the content and the project, and the events'
ids count from 0 in the order of time; causes precede effects at the same time.
"""

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Any

from runfold.protocol import codec
from runfold.protocol.codec import Envelope
from runfold.protocol.events import (
    Completed,
    Event,
    NodeFinished,
    NodeStarted,
    PlannedNode,
    Started,
    Trigger,
)
from runfold.protocol.time_limits import explain_time
from runfold.serialization.redaction import Redactor
from runfold_stack.argv_redaction import redact_command_line

from .graph import Task
from .instance import Instance
from .names import node_id, node_type, run_id, workflow_name
from .payloads import LIST_BYTES, PLAN_BYTES, cut_name, encode, keep, mark_cut, put, put_files
from .schema import Execution, WfFormatError
from .timetable import schedule

Times = dict[str, tuple[float, float]]
"""Start and end of each task, in seconds after the run's start."""


def count_events(instance: Instance) -> int:
    """Return the number of events that `events` yields."""
    return 2 + 2 * sum(task.execution is not None for task in instance.tasks)


def events(
    instance: Instance,
    *,
    project: str | None,
    latest_us: int = codec.MAX_US,
    redactor: Redactor | None = None,
) -> Iterator[Envelope]:
    """Yield all events of the run, from `started` to `completed`, with masked secrets.

    Raise `WfFormatError` before the first event if one would be dated before the year 2000 or
    after `latest_us`.
    """
    run = run_id(instance, project=project)
    begin_us = codec.to_us(instance.executed_at)
    times = schedule(instance)
    length_us = _to_us(max([instance.makespan_s, *(end_s for _, end_s in times.values())]))
    for what, at_us in (("the start", begin_us), ("the end", begin_us + length_us)):
        reason = explain_time(what, at_us, latest_us)
        if reason is not None:
            raise WfFormatError(
                f"{instance.source}: workflow.execution: {reason}; "
                "correct executedAt or the runtimes"
            )
    for number, (after_us, event) in enumerate(
        _timed(instance, project, times, redactor or Redactor())
    ):
        yield codec.make_envelope(event, run=run, id=number, at_us=begin_us + after_us)


def _timed(
    instance: Instance, project: str | None, times: Times, redactor: Redactor
) -> Iterator[tuple[int, Event]]:
    tasks = {task.id: task for task in instance.tasks}
    yield 0, _started(instance, project, times)
    running: list[tuple[int, int, Task, Execution]] = []
    end_us = 0
    for rank, (task_id, (start_s, end_s)) in enumerate(times.items()):
        task, start_us = tasks[task_id], _to_us(start_s)
        assert task.execution is not None
        # What ends when this one starts comes first: it may be a parent of it.
        while running and running[0][0] <= start_us:
            end_us, _, ended, execution = heappop(running)
            yield end_us, _node_finished(instance, ended, execution)
        yield start_us, _node_started(instance, task, task.execution, redactor)
        heappush(running, (_to_us(end_s), rank, task, task.execution))
    while running:
        end_us, _, ended, execution = heappop(running)
        yield end_us, _node_finished(instance, ended, execution)
    yield max(end_us, _to_us(instance.makespan_s)), _completed(instance)


def _started(instance: Instance, project: str | None, order: Iterable[str]) -> Started:
    document = instance.document
    system = document.runtime_system
    metadata: dict[str, Any] = {
        "name": instance.name,
        "source": instance.source,
        "schemaVersion": document.schema_version,
        "executedAt": instance.executed_at_text,
        "makespanInSeconds": instance.makespan_s,
        "createdAt": document.created_at,
        "description": document.description,
        "author": document.author,
        "runtimeSystem": system,
        "repo": document.workflow.repo,
        "runName": document.workflow.run_name,
    }
    put(metadata, "machines", instance.machines)
    nodes = _plan(instance, order)
    mark_cut(metadata, "nodes", kept=len(nodes), of=len(instance.tasks))
    written = {file for task in instance.tasks for file in task.output_files}
    given = (file for task in instance.tasks for file in task.input_files if file not in written)
    inputs: dict[str, Any] = {}
    put_files(inputs, "inputFiles", dict.fromkeys(given), instance.file_sizes)
    return Started(
        workflow=workflow_name(instance.name),
        project=project,
        trigger=Trigger(type="import", data=encode({"format": "wfformat"})),
        tags=None if system is None else {"runtime_system": cut_name(system.name)},
        metadata=encode(metadata),
        inputs=encode(inputs),
        nodes=nodes,
    )


def _plan(instance: Instance, order: Iterable[str]) -> list[PlannedNode]:
    """Return the nodes in the order of their start; the parents of a kept node are kept, too."""
    tasks = {task.id: task for task in instance.tasks}
    never_ran = [task.id for task in instance.tasks if task.execution is None]
    return keep(
        (
            PlannedNode(
                node=node_id(task.id),
                name=cut_name(task.name),
                node_type=node_type(task),
                parents=[node_id(parent) for parent in task.parents],
            )
            for task in (tasks[task_id] for task_id in [*order, *never_ran])
        ),
        PLAN_BYTES,
    )


def _node_started(
    instance: Instance, task: Task, execution: Execution, redactor: Redactor
) -> NodeStarted:
    inputs: dict[str, Any] = {}
    if execution.command is not None:
        inputs["command"] = {"program": execution.command.program}
        arguments = redact_command_line(execution.command.arguments, redactor)
        put(inputs["command"], "arguments", arguments)
    put_files(inputs, "inputFiles", task.input_files, instance.file_sizes)
    put(inputs, "machines", execution.machine_names())
    inputs["coreCount"] = execution.core_count
    inputs["priority"] = execution.priority
    inputs["executedAt"] = execution.executed_at
    parents = keep((node_id(parent) for parent in task.parents), LIST_BYTES)
    mark_cut(inputs, "parents", kept=len(parents), of=len(task.parents))
    return NodeStarted(
        node=node_id(task.id),
        name=cut_name(task.name),
        node_type=node_type(task),
        parents=parents,
        inputs=encode(inputs),
    )


def _node_finished(instance: Instance, task: Task, execution: Execution) -> NodeFinished:
    outputs: dict[str, Any] = {}
    put_files(outputs, "outputFiles", task.output_files, instance.file_sizes)
    outputs["avgCPU"] = execution.avg_cpu
    outputs["memoryInBytes"] = execution.memory_in_bytes
    outputs["readBytes"] = execution.read_bytes
    outputs["writtenBytes"] = execution.written_bytes
    outputs["energyInKWh"] = execution.energy_in_kwh
    outputs["avgPowerInW"] = execution.avg_power_in_w
    return NodeFinished(
        node=node_id(task.id),
        status="completed",
        outputs=encode(outputs),
        duration_ms=execution.runtime_in_seconds * 1000,
    )


def _completed(instance: Instance) -> Completed:
    """Return the end of the run; its outputs are the files that no task has read."""
    read = {file for task in instance.tasks for file in task.input_files}
    left = (file for task in instance.tasks for file in task.output_files if file not in read)
    outputs: dict[str, Any] = {}
    put_files(outputs, "outputFiles", dict.fromkeys(left), instance.file_sizes)
    return Completed(duration_ms=instance.makespan_s * 1000, outputs=encode(outputs))


def _to_us(seconds: float) -> int:
    return round(seconds * 1e6)
