"""The events of one imported execution, in the order of time.

The run's id is derived from the content and the project, and the events' ids count from 0; causes
precede effects at the same time.
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

from .instance import Instance
from .payloads import (
    LIST_BYTES,
    PLAN_BYTES,
    cut_mark,
    cut_name,
    encode,
    keep,
    listed,
    listed_files,
    node_id,
    node_type,
    run_id,
    workflow_name,
)
from .schema import Execution, Task, WfFormatError
from .timetable import schedule

Times = dict[str, tuple[float, float]]
"""Start and end of each task, in seconds after the run's start."""


def count_events(instance: Instance) -> int:
    return 2 + 2 * len(instance.executions)


def events(
    instance: Instance,
    *,
    project: str | None,
    latest_us: int = codec.MAX_US,
    redactor: Redactor | None = None,
) -> Iterator[Envelope]:
    """Yield all events of the run, from `started` to `completed`, with masked secrets.

    Raise `WfFormatError` before the first one if a time is before 2000 or after `latest_us`.
    """
    run = run_id(instance, project=project)
    begin_us = codec.to_us(instance.executed_at)
    times = schedule(instance)
    ends_s = (end_s for _, end_s in times.values())
    length_us = _to_us(max([instance.execution.makespan_in_seconds, *ends_s]))
    for what, at_us in (("the start", begin_us), ("the end", begin_us + length_us)):
        reason = explain_time(what, at_us, latest_us)
        if reason is not None:
            message = f"{instance.source}: workflow.execution: {reason}"
            raise WfFormatError(f"{message}; correct executedAt or the runtimes")
    timed = _timed(instance, project, times, redactor or Redactor())
    for number, (after_us, event) in enumerate(timed):
        yield codec.make_envelope(event, run=run, id=number, at_us=begin_us + after_us)


def _timed(
    instance: Instance, project: str | None, times: Times, redactor: Redactor
) -> Iterator[tuple[int, Event]]:
    tasks = {task.id: task for task in instance.tasks}
    yield 0, _started(instance, project, times)
    running: list[tuple[int, int, Task]] = []
    end_us = 0
    for rank, (task_id, (start_s, end_s)) in enumerate(times.items()):
        task, execution, start_us = tasks[task_id], instance.executions[task_id], _to_us(start_s)
        # What ends when this one starts comes first: it may be a parent of it.
        while running and running[0][0] <= start_us:
            end_us, _, ended = heappop(running)
            yield end_us, _node_finished(instance, ended)
        yield start_us, _node_started(instance, task, execution, redactor)
        heappush(running, (_to_us(end_s), rank, task))
    while running:
        end_us, _, ended = heappop(running)
        yield end_us, _node_finished(instance, ended)
    yield max(end_us, _to_us(instance.execution.makespan_in_seconds)), _completed(instance)


def _started(instance: Instance, project: str | None, order: Iterable[str]) -> Started:
    document = instance.document
    system, workflow = document.runtime_system, document.workflow
    nodes = _plan(instance, order)
    metadata = {
        "name": instance.document.name,
        "source": instance.source,
        "schemaVersion": document.schema_version,
        "executedAt": instance.execution.executed_at,
        "makespanInSeconds": instance.execution.makespan_in_seconds,
        "createdAt": document.created_at,
        "description": document.description,
        "author": document.author,
        "runtimeSystem": system,
        "repo": workflow.repo,
        "runName": workflow.run_name,
        **listed("machines", instance.execution.machines),
        **cut_mark("nodes", nodes, instance.tasks),
    }
    written = {file for task in instance.tasks for file in task.output_files}
    given = (file for task in instance.tasks for file in task.input_files if file not in written)
    return Started(
        workflow=workflow_name(instance.document.name),
        project=project,
        trigger=Trigger(type="import", data=encode({"format": "wfformat"})),
        tags=None if system is None else {"runtime_system": cut_name(system.name)},
        metadata=encode(metadata),
        inputs=encode(listed_files("inputFiles", dict.fromkeys(given), instance)),
        nodes=nodes,
    )


def _plan(instance: Instance, order: Iterable[str]) -> list[PlannedNode]:
    """Return the nodes in the order of their start; the parents of a kept node are kept, too."""
    tasks = {task.id: task for task in instance.tasks}
    never_ran = [task.id for task in instance.tasks if task.id not in instance.executions]
    nodes = (
        PlannedNode(
            node=node_id(task.id),
            name=cut_name(task.name),
            node_type=node_type(task, instance),
            parents=[node_id(parent) for parent in task.parents],
        )
        for task in (tasks[task_id] for task_id in [*order, *never_ran])
    )
    return keep(nodes, PLAN_BYTES)


def _node_started(
    instance: Instance, task: Task, execution: Execution, redactor: Redactor
) -> NodeStarted:
    command = execution.command
    inputs: dict[str, Any] = {}
    if command is not None:
        arguments = redact_command_line(command.arguments, redactor)
        inputs["command"] = {"program": command.program, **listed("arguments", arguments)}
    parents = keep((node_id(parent) for parent in task.parents), LIST_BYTES)
    inputs |= {
        **listed_files("inputFiles", task.input_files, instance),
        **listed("machines", execution.machine_names()),
        "coreCount": execution.core_count,
        "priority": execution.priority,
        "executedAt": execution.executed_at,
        **cut_mark("parents", parents, task.parents),
    }
    return NodeStarted(
        node=node_id(task.id),
        name=cut_name(task.name),
        node_type=node_type(task, instance),
        parents=parents,
        inputs=encode(inputs),
    )


def _node_finished(instance: Instance, task: Task) -> NodeFinished:
    execution = instance.executions[task.id]
    outputs = {
        **listed_files("outputFiles", task.output_files, instance),
        "avgCPU": execution.avg_cpu,
        "memoryInBytes": execution.memory_in_bytes,
        "readBytes": execution.read_bytes,
        "writtenBytes": execution.written_bytes,
        "energyInKWh": execution.energy_in_kwh,
        "avgPowerInW": execution.avg_power_in_w,
    }
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
    outputs = encode(listed_files("outputFiles", dict.fromkeys(left), instance))
    return Completed(duration_ms=instance.execution.makespan_in_seconds * 1000, outputs=outputs)


def _to_us(seconds: float) -> int:
    return round(seconds * 1e6)
