"""The tasks of an instance as a graph without holes and without cycles."""

from pathlib import Path

from msgspec import Struct

from .errors import refuse
from .schema import Execution, Specification


class Task(Struct, frozen=True):
    """A planned task and what was measured of it; `execution` is None if it never ran."""

    id: str
    name: str
    parents: tuple[str, ...]
    input_files: tuple[str, ...]
    output_files: tuple[str, ...]
    execution: Execution | None


def join_tasks(
    path: Path, planned: tuple[Specification, ...], executed: tuple[Execution, ...]
) -> tuple[Task, ...]:
    """The planned tasks in the file's order, each with its execution; raises `WfFormatError`."""
    place = "workflow.execution.tasks"
    measured: dict[str, Execution] = {}
    known = {task.id for task in planned}
    for number, execution in enumerate(executed):
        if execution.id in measured:
            refuse(path, f"{place}[{number}]", f"{execution.id!r} comes twice; remove one")
        if execution.id not in known:
            refuse(
                path,
                f"{place}[{number}]",
                f"{execution.id!r} ran without being in workflow.specification.tasks; "
                "add it there or remove it here",
            )
        measured[execution.id] = execution
    tasks: dict[str, Task] = {}
    place = "workflow.specification.tasks"
    for number, task in enumerate(planned):
        if task.id in tasks:
            refuse(path, f"{place}[{number}]", f"{task.id!r} comes twice; give each its own id")
        for parent in task.parents:
            if parent not in known:
                refuse(
                    path,
                    f"{place}[{number}].parents",
                    f"{task.id!r} names the parent {parent!r}, which does not exist; "
                    "add that task or remove the name",
                )
        tasks[task.id] = Task(
            id=task.id,
            name=task.name or task.id,
            parents=tuple(dict.fromkeys(task.parents)),
            input_files=task.input_files,
            output_files=task.output_files,
            execution=measured.get(task.id),
        )
    cycle = _find_cycle(tasks)
    if cycle:
        refuse(
            path,
            place,
            f"the parents form a cycle ({' <- '.join(cycle)}), so none of these could ever "
            "start; remove one of the dependencies",
        )
    return tuple(tasks.values())


def _find_cycle(tasks: dict[str, Task]) -> list[str]:
    """Tasks of which each waits for the next, the first one again at the end; or none."""
    waiting = {task.id: len(task.parents) for task in tasks.values()}
    children: dict[str, list[str]] = {task: [] for task in tasks}
    for task in tasks.values():
        for parent in task.parents:
            children[parent].append(task.id)
    free = [task for task, count in waiting.items() if not count]
    while free:
        done = free.pop()
        del waiting[done]
        for child in children[done]:
            waiting[child] -= 1
            if not waiting[child]:
                free.append(child)
    if not waiting:
        return []
    # Whatever is left has a parent that is left: following it must come back somewhere.
    trail = [next(iter(waiting))]
    seen = {trail[0]: 0}
    while True:
        parent = next(parent for parent in tasks[trail[-1]].parents if parent in waiting)
        trail.append(parent)
        if parent in seen:
            return trail[seen[parent] :]
        seen[parent] = len(trail) - 1
